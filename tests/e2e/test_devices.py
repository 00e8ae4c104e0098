"""One network on 1, 2 and 8 devices and in batches of 7 and 64: the same noise, the same scores."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json, pathlib
import jax, numpy as np
from reprojax.data.source import SourceSpec, open_source
from reprojax.data.subset import split
from reprojax.data.transform import to_float, to_uint8
from reprojax.denoisers.gaussian import gaussian_denoiser
from reprojax.denoisers.network import NetworkDenoiser
from reprojax.diffusion.losses.denoising import DenoisingObjective
from reprojax.diffusion.preconditioning import Preconditioning
from reprojax.runtime.mesh import make_mesh
from reprojax.models.families import build_network
from reprojax.sampling.flow import SamplerSpec, sample
from reprojax.sampling.noise import NoiseBank
from reprojax.scoring.descriptors import PixelDescriptor
from reprojax.scoring.pairs import mae_score, rp
from reprojax.scoring.thresholds import calibrate_rp
from reprojax.rng import root_key
from reprojax.training.loop import Run, train
from reprojax.training.packed import (
    packed_spec, packed_step, stack_roots, stack_states, stacked_batch_sharding, train_packed,
)
from reprojax.runtime.stop import StopRequest
from reprojax.training.spec import LoopSpec, TrainingSpec
from reprojax.training.step import StepSpec
import sys

assert len(jax.devices()) == 8
digits = split(open_source(SourceSpec("digits")), n_train=500, n_heldout=0, seed=0)
module = build_network("uvit", (8, 8, 1), dict(width=16, depth=2, num_heads=2, patch=4))
training = TrainingSpec(steps=300, learning_rate=5e-3)


def train_on(devices, folder, sharding="replicated"):
    mesh = make_mesh(jax.devices()[:devices])
    spec = StepSpec(module, Preconditioning(), DenoisingObjective(), training, mesh, sharding)
    run = Run("cell", spec, LoopSpec(), 0, digits.train, None, pathlib.Path(folder))
    pathlib.Path(folder).mkdir()
    return train(run, stop=StopRequest(), log=lambda _: None)


params = train_on(1, "one")
images = digits.train.images()
descriptor = PixelDescriptor.fit([images])
tau = calibrate_rp(descriptor(images))
bank = NoiseBank(0, 256, (8, 8, 1))
other = to_uint8(sample(gaussian_denoiser([to_float(images)]), bank, SamplerSpec()).images)


def scores(params, devices, batch_size):
    mesh = make_mesh(jax.devices()[:devices])
    denoise = NetworkDenoiser(params, module, Preconditioning())
    spec = SamplerSpec(batch_size=batch_size)
    images = to_uint8(sample(denoise, bank, spec, mesh=mesh).images)
    return [rp(descriptor(images), descriptor(other), tau), mae_score(images, other)]


results = {}
for devices in (1, 2, 8):
    for batch_size in (7, 64):
        fingerprint = NoiseBank(0, 256, (8, 8, 1)).fingerprint()
        results[f"{devices} {batch_size}"] = [fingerprint, *scores(params, devices, batch_size)]
results["trained on 8"] = ["", *scores(train_on(8, "eight", "sharded"), 8, 64)]

# Four models in one program over the eight devices: two devices hold each.
spec = StepSpec(
    module, Preconditioning(), DenoisingObjective(), TrainingSpec(steps=10), make_mesh(), "sharded"
)
runs = []
for name, seed in [("p0", 0), ("p1", 1), ("p2", 2), ("p3", 3), ("alone", 2)]:
    runs.append(Run(name, spec, LoopSpec(), seed, digits.train, None, pathlib.Path(name)))
    runs[-1].directory.mkdir()
*packed, alone = runs
quiet = dict(stop=StopRequest(), log=lambda _: None)


def flat(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


together, own = flat(train_packed(packed, **quiet)[2]), flat(train(alone, **quiet))
wide = packed_spec(spec, 4)
state = stack_states([spec.init((8, 8, 1), root_key(i)) for i in range(4)], wide)
images = jax.device_put(np.zeros((4, 64, 8, 8, 1), np.uint8), stacked_batch_sharding(wide))
roots = stack_roots([root_key(i) for i in range(4)], wide)
state, values = packed_step(state, images, None, roots, spec=wide)
rows = [[s.index[0].indices(4)[:2] for s in a.addressable_shards] for a in jax.tree.leaves(state)]
results["packed"] = {
    "mesh": dict(wide.mesh.shape),
    "difference": float(np.linalg.norm(together - own) / np.linalg.norm(own)),
    "rows": sorted({tuple(sorted(r)) for r in rows}),
    "images of a device": images.addressable_shards[0].data.shape[:2],
}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory, repo_root):
    flags = "--xla_force_host_platform_device_count=8"
    env = {**os.environ, "PYTHONPATH": str(repo_root), "XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path_factory.mktemp("devices"),
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_noise_bits_and_scores_do_not_depend_on_devices_or_batches(results):
    sampled = {k: v for k, v in results.items() if k[0].isdigit()}
    assert len({fingerprint for fingerprint, *_ in sampled.values()}) == 1
    for values in zip(*(v[1:] for v in sampled.values()), strict=True):
        assert max(values) - min(values) <= 1 / 256 + 1e-12
    assert 0.02 < sampled["1 64"][1] < 0.98  # a score that could have moved


def test_training_sharded_over_eight_devices_is_the_same_training(results):
    """Sums in another order move the last bits, and over 300 steps a few samples; not more."""
    for one, eight in zip(results["1 64"][1:], results["trained on 8"][1:], strict=True):
        assert abs(one - eight) < 0.1


def test_a_pack_lies_over_the_model_axis(results):
    packed = results["packed"]
    assert {k: packed["mesh"][k] for k in ("model", "data")} == {"model": 4, "data": 2}
    assert packed["rows"] == [[[i, i + 1] for i in range(4) for _ in range(2)]]
    assert packed["images of a device"] == [1, 32]
    assert packed["difference"] < 1e-4
