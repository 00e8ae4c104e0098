"""Sharding planned for devices that are not there: memory and collectives of the largest step."""

import re
from dataclasses import replace

import pytest

from reprojax.training.pod import Collective, PodPlan, collectives, gather_line

PROGRAM = """
  %all-gather.3 = f32[16,64]{1,0} all-gather(%p.1), channel_id=1, dimensions={0}
  %all-gather.4 = (f32[8]{0}, bf16[2,3]{1,0}) all-gather(%p.2, %p.3), channel_id=2
  %g = (f32[4]{0}, f32[32]{0}) all-gather-start(%p.4), channel_id=3, dimensions={0}
  %r = f32[] all-reduce(%sum), channel_id=4, to_apply=%add
  %fusion.1 = f32[16,64]{1,0} fusion(%all-gather.3), kind=kLoop, calls=%all-gather_fusion
  ROOT %s = u8[10]{0} reduce-scatter(%p.5), channel_id=5
"""


def test_collectives_are_read_from_the_program():
    assert list(collectives(PROGRAM)) == [
        Collective("all-gather", 4 * 16 * 64),
        Collective("all-gather", 4 * 8 + 2 * 6),
        Collective("all-gather", 4 * 32),
        Collective("all-reduce", 4),
        Collective("reduce-scatter", 10),
    ]


def test_a_gather_of_the_whole_state_is_said():
    plan = PodPlan(8, 1000, 400, 150, 150, 90, (Collective("all-gather", 400),), 1.0)
    assert gather_line(plan, sharded=True).startswith("no all-gather gathers the whole state")
    whole = replace(plan, collectives=(Collective("all-gather", 1000),))
    assert gather_line(whole, sharded=True).startswith("an all-gather gathers the whole state")


def planned(start, config, devices, **fields):
    """The numbers that the command prints: of memory per device and of all-gathers, in MB."""
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    process = start(f"--config={config}", f"--plan_devices={devices}", *options)
    out, err = process.communicate(timeout=3000)
    assert process.returncode == 0, err
    print(out)
    numbers = re.findall(
        r"^\s*(arguments|temporaries|all-gather|the whole state)[ ,].*?([\d.,]+) MB", out, re.M
    )
    return out, {name: float(value.replace(",", "")) for name, value in numbers}


def test_a_small_step_planned_for_eight_devices(tiny, tmp_path, start):
    wide = {"models.b_uvit.network.width": 64}
    sharded = {"loop.state_sharding": "sharded", "loop.fsdp": 4}
    out, found = planned(start, tiny, 8, **wide, **sharded)
    assert "'data': 2, 'fsdp': 4" in out and "b_uvit" in out
    assert "no all-gather gathers the whole state" in out
    assert found["all-gather"] > 0 and found["temporaries"] > 0
    assert found["the whole state"] / 4 <= found["arguments"] < 0.5 * found["the whole state"]
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [8, 256])
def test_the_largest_network_of_the_paper_planned_for_a_pod(devices, repo_root, tmp_path, start):
    """DDPM++ of width 256 (222.7 M parameters), the images replaced by random ones of its size."""
    import numpy as np

    data = tmp_path / "images.npz"
    np.savez(data, images=np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), np.uint8))
    config = tmp_path / "largest.py"
    config.write_text(
        "from reprojax import config as rc\n"
        "def get_config(scale=''):\n"
        "    config = rc.default_config('largest')\n"
        f"    config.data.update(source='npz', path={str(data)!r})\n"
        "    network = dict(width=256, multipliers=(2, 2, 2), num_blocks=4, dropout=0.13)\n"
        "    config.training.batch_size = 512\n"
        "    config.loop.update(state_sharding='sharded', fsdp=8)\n"
        "    rc.add_models(config, large=rc.network_model('unet', network=network))\n"
        "    return config\n"
    )
    out, found = planned(start, config, devices)
    assert "222,7" in out
    assert "no all-gather gathers the whole state" in out
    assert found["the whole state"] / 8 <= found["arguments"] < 0.2 * found["the whole state"]
