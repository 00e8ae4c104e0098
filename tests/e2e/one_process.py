"""One process of a job of several: ``python one_process.py TASK FOLDER PORT COUNT NUMBER [DTYPE]``.

It writes its results to FOLDER/result-COUNT-DTYPE.npz. With COUNT 1 it does not join a job.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from reprojax.errors import ReprojaxError
from reprojax.runtime import files, job

SHAPE = (8, 8, 1)


def make_run(folder, training, dtype="float32", **loop):
    from reprojax.data.source import SourceSpec, open_source
    from reprojax.data.subset import split
    from reprojax.diffusion.losses.denoising import DenoisingObjective
    from reprojax.diffusion.preconditioning import Preconditioning
    from reprojax.models.families import build_network
    from reprojax.runtime.mesh import make_mesh
    from reprojax.training.loop import Run
    from reprojax.training.spec import LoopSpec
    from reprojax.training.step import StepSpec

    digits = split(open_source(SourceSpec("digits")), n_train=100, n_heldout=50, seed=0)
    module = build_network("uvit", SHAPE, dict(width=32, depth=2, num_heads=2, patch=4))
    module = module.clone(dtype=np.dtype(dtype))
    groups = min(2, jax.device_count())
    loop = LoopSpec(**{"state_sharding": "sharded", "fsdp": groups, "log_every": 10, **loop})
    mesh = make_mesh(fsdp=loop.fsdp)
    job.meet(mesh)
    spec = StepSpec(
        module,
        Preconditioning(),
        DenoisingObjective(),
        training,
        mesh,
        sharding=loop.state_sharding,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return Run("cell", spec, loop, 7, digits.train, digits.heldout, folder)


def as_dtype(run, state, dtype):
    """Returns the state in another dtype and in the same layout."""

    def cast(a):
        return a.astype(dtype) if a.dtype.kind == "f" else a

    host = jax.tree.map(cast, job.fetch(state))
    return job.place(host, run.spec.shardings(host))


def compare(folder, dtype):
    """Returns noises, two batches, the first gradient and the parameters after 50 steps."""
    from reprojax.rng import root_key
    from reprojax.runtime.mesh import batch_sharding
    from reprojax.sampling.noise import NoiseBank
    from reprojax.training.loop import _batches
    from reprojax.training.spec import TrainingSpec
    from reprojax.training.step import _loss_and_grad, train_step

    jax.config.update("jax_enable_x64", dtype == "float64")
    run = make_run(folder, TrainingSpec(steps=50, batch_size=16, warmup_steps=5), dtype)
    root = root_key(run.seed)
    state = as_dtype(run, run.spec.init(SHAPE, root), dtype)
    bank = NoiseBank(3, 16, SHAPE)
    noises = job.place(bank.all(), batch_sharding(run.spec.mesh))
    results = {"noises": job.fetch(noises)}
    gradient = jax.jit(_loss_and_grad, static_argnames=("spec",))
    for step, (images, labels) in enumerate(_batches(run, 0)):
        if step < 2:
            results[f"batch{step}"] = job.fetch(images)
        if step == 0:
            _, grads = gradient(state, images, labels, root, spec=run.spec)
            results["gradient"] = flat(grads)
        state, _ = train_step(state, images, labels, root, spec=run.spec)
    spread = [leaf.sharding.spec for leaf in jax.tree.leaves(state.params)]
    assert any("fsdp" in spec for spec in spread), "no parameter is split"
    return {**results, "params": flat(state.params)}


def flat(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(job.fetch(tree))])


def train_some(folder, dtype):
    """Trains for 60 steps, or without end to be killed, with a checkpoint every tenth step."""
    from reprojax.runtime.stop import StopRequest
    from reprojax.training.loop import train
    from reprojax.training.spec import TrainingSpec

    training = TrainingSpec(steps=60, batch_size=16, warmup_steps=5)
    endless = dtype == "endless"
    run = make_run(folder, replace(training, steps=10**9) if endless else training)
    stop = StopRequest()
    lines = []

    def on_step(done, last):
        if endless and done == 5:
            (folder / f"ready{jax.process_index()}").touch()
        if dtype == "stops" and done == 20:
            stop.requested = True

    params = train(run, stop=stop, on_step=on_step, log=lines.append)
    return {"params": flat(params), "log": np.array(lines)}


def come(folder, dtype):
    """Exchanges 1000 small values with the others; returns the milliseconds of one exchange."""
    seconds = []
    for turn in range(1000):
        began = time.perf_counter()
        assert job.any_of(turn % 2 == jax.process_index() == 1) == (turn % 2 == 1)
        seconds.append(time.perf_counter() - began)
    return {"ms": 1000 * np.array(seconds)}


TASKS = {"compare": compare, "train": train_some, "come": come}


def main(task, folder, port, count, number, dtype="float32"):
    folder, count, number = Path(folder), int(count), int(number)
    try:
        if count > 1:
            timeout = 3 if task == "come" else 240
            job.start(f"localhost:{port}", count, number, timeout=timeout)
        results = TASKS[task](folder / task, dtype)
        files.write_npz(folder / f"result-{count}-{dtype}.npz", **results)
        job.end()
    except ReprojaxError as error:
        return job.abandon(error.exit_code, str(error))
    except Exception as error:
        job.note_failure(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
