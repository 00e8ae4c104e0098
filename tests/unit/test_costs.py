"""FLOPs and memory of networks against counts by hand, and the totals of the paper's grid."""

from __future__ import annotations

import importlib.util
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from reprojax import config as rc
from reprojax.models.costs import count_flops, h100_hours, network_cost
from reprojax.models.families import build_network
from reprojax.runtime.console import Reporter
from reprojax.study.planning.plan import plan_cell, print_plan

SHAPE = (32, 32, 3)
DDPMPP = dict(multipliers=(2, 2, 2), num_blocks=4, attention=(16,), dropout=0.13)


def ddpmpp_macs(width: int, size: int = 32, channels: int = 3, blocks: int = 4) -> int:
    """Multiplications of DDPM++ by its published description (arXiv 2011.13456, 2206.00364).

    Three resolutions of 2 x width channels; per block two 3 x 3 convolutions, the projected
    embedding, a 1 x 1 convolution on the skip where the channels or the resolution change, and
    attention at 16 x 16 (on the way up after the last block alone) and in the middle.
    """
    wide, embedding = 2 * width, 4 * width
    total = width * embedding + embedding * embedding  # the embedding's two layers
    total += size**2 * 9 * channels * width + size**2 * 9 * wide * channels  # first and last

    def block(side, inputs, attention=False, resample=False):
        tokens = side**2
        macs = tokens * 9 * wide * (inputs + wide) + embedding * wide
        macs += tokens * inputs * wide if resample or inputs != wide else 0
        if attention:  # queries, keys, values; scores and their sum of values; projection
            macs += tokens * wide * 3 * wide + 2 * tokens**2 * wide + tokens * wide * wide
        return macs

    skips, at = [width], width
    for level in range(3):
        side = size >> level
        if level:
            total += block(side, at, resample=True)
            skips.append(wide)
        for _ in range(blocks):
            total += block(side, at, attention=side == 16)
            at = wide
            skips.append(at)
    total += block(size // 4, wide, attention=True) + block(size // 4, wide)
    for level in (2, 1, 0):
        side = size >> level
        for i in range(blocks + 1):
            total += block(side, wide + skips.pop(), attention=side == 16 and i == blocks)
        total += block(2 * side, wide, resample=True) if level else 0
    return total


@pytest.mark.parametrize(
    ("width", "params", "gflop"), [(64, 13.9e6, 10.7), (128, 55.7e6, 42.4), (256, 222.7e6, 168.8)]
)
def test_ddpmpp_by_hand(width, params, gflop):
    cost = network_cost(build_network("unet", SHAPE, DDPMPP | {"width": width}, "bfloat16"), SHAPE)
    assert cost.params == pytest.approx(params, rel=5e-3)
    assert cost.forward_flops == pytest.approx(2 * ddpmpp_macs(width), rel=1e-6)
    assert cost.forward_flops == pytest.approx(gflop * 1e9, rel=5e-3)


def flops(fn, *shapes):
    return count_flops(jax.make_jaxpr(fn)(*[jnp.zeros(s, jnp.float32) for s in shapes]).jaxpr)


def conv(x, w, **how):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, padding="SAME", dimension_numbers=dims, **how)


def test_a_convolution_counts_its_padding():
    x, w = (2, 8, 8, 4), (3, 3, 4, 6)
    assert flops(lambda x, w: conv(x, w, window_strides=(1, 1)), x, w) == 2 * 2 * 64 * 9 * 4 * 6
    assert flops(lambda x, w: conv(x, w, window_strides=(2, 2)), x, w) == 2 * 2 * 16 * 9 * 4 * 6
    grouped = lambda x, w: conv(x, w, window_strides=(1, 1), feature_group_count=2)  # noqa: E731
    assert flops(grouped, x, (3, 3, 2, 6)) == 2 * 2 * 64 * 9 * 2 * 6


def test_a_product_counts_wherever_it_stands():
    a, b = (5, 7), (7, 3)
    once = 2 * 5 * 7 * 3
    assert flops(jnp.dot, a, b) == once
    assert flops(lambda a, b: jnp.einsum("hij,hjk->hik", a, b), (4, *a), (4, *b)) == 4 * once
    assert flops(jax.jit(jnp.dot), a, b) == once
    assert flops(jax.checkpoint(jnp.dot), a, b) == once
    derived = jax.custom_vjp(jnp.dot)
    derived.defvjp(lambda a, b: (jnp.dot(a, b), None), lambda _, g: (g, g))
    assert flops(derived, a, b) == once
    turns = lambda a, b: jax.lax.scan(lambda c, _: (c, c @ b), a, length=11)  # noqa: E731
    assert flops(turns, a, b) == 11 * once
    branch = lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: b[:5] * 0)  # noqa: E731
    assert flops(branch, a, b) == once


def test_memory_of_a_network_by_hand():
    """A convolution's backward pass needs what went into it, and a norm's in float32."""
    network = dict(multipliers=(1,), num_blocks=1, dropout=0.0)
    narrow, wide = (
        network_cost(build_network("conv_unet", (8, 8, 1), network | {"width": width}), (8, 8, 1))
        for width in (16, 32)
    )
    assert narrow.cast_bytes < 1000  # float32 parameters are not copied
    # All that is held is activations of 8 x 8 pixels: in proportion to the width.
    assert wide.held_bytes == pytest.approx(2 * narrow.held_bytes, rel=0.05)
    # At least the inputs of ten convolutions and as many norms and activations.
    assert narrow.held_bytes > 20 * 64 * 16 * 4
    constants = narrow.cast_bytes
    assert narrow.training_bytes(0) == 5 * 4 * narrow.params + constants
    shared = 10 * narrow.params + constants + 7 * narrow.held_bytes
    assert narrow.training_bytes(7, shards=2) == shared
    assert narrow.training_bytes(0, teacher=True) == 24 * narrow.params + constants


def test_half_precision_holds_less_and_copies_the_parameters():
    network = dict(width=64, depth=2, num_heads=4, patch=4)
    full, half = (
        network_cost(build_network("uvit", SHAPE, network, dtype), SHAPE)
        for dtype in ("float32", "bfloat16")
    )
    assert half.forward_flops == full.forward_flops
    assert half.held_bytes < full.held_bytes
    assert 0.9 * 2 * half.params < half.cast_bytes <= 2 * half.params


class Sizes:
    """Stands for images of which a plan asks only how many there are, and how large."""

    shape = SHAPE

    def n_train(self, cell):
        return cell.data.n_train


@pytest.fixture(scope="module")
def grid(repo_root):
    """The shipped grid at the paper's scale: three widths, N from 2^6 to 2^15, 50 M images each."""
    spec = importlib.util.spec_from_file_location("grid", repo_root / "configs" / "grid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    study = rc.make_study(module.get_config())
    # Of a prepared study a plan reads these three.
    return SimpleNamespace(study=study, images=Sizes(), banks=SimpleNamespace(n=16))


def test_the_papers_grid(grid):
    before = network_cost.cache_info().misses
    assert sum(cell.kind == "network" for cell in grid.study.cells) == 30
    total = sum(plan_cell(grid, cell).cost.train_flops for cell in grid.study.cells)
    assert network_cost.cache_info().misses - before <= 3  # three networks, each counted once
    assert f"{total:.1e}" == "3.3e+20"
    assert h100_hours(total) == pytest.approx(233, abs=2)
    out = io.StringIO()
    print_plan(grid, Reporter(Console(file=out, width=100)))
    text = out.getvalue()
    assert "3.3e+20 FLOP to train" in text and re.search(r"about 23\d H100-hours at 40 %", text)
    row = next(line for line in text.splitlines() if "ddpmpp128_n64 " in line).split()
    memory = plan_cell(grid, grid.study.cell("ddpmpp128_n64")).cost.train_bytes / 1e9
    assert float(row[-3]) == pytest.approx(memory, rel=0.05)
    assert 10 < memory < 40  # 128 images of 32 x 32


def test_devices_share_the_batch(grid):
    cell = grid.study.cell("ddpmpp64_n64")
    one, four = (plan_cell(grid, cell, devices).cost.train_bytes for devices in (1, 4))
    cost = network_cost(build_network("unet", SHAPE, dict(cell.model.network), "bfloat16"), SHAPE)
    assert one - four == 96 * cost.held_bytes


def test_a_sharded_state_is_divided_within_its_group(grid):
    cell = grid.study.cell("ddpmpp64_n64")
    cost = network_cost(build_network("unet", SHAPE, dict(cell.model.network), "bfloat16"), SHAPE)
    for fsdp, shards in ((1, 8), (4, 4)):
        loop = replace(grid.study.loop, state_sharding="sharded", fsdp=fsdp)
        spread = SimpleNamespace(**{**vars(grid), "study": replace(grid.study, loop=loop)})
        planned = plan_cell(spread, cell, devices=8).cost.train_bytes
        assert planned == cost.training_bytes(16, shards=shards)
