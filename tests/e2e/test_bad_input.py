"""Each mistake is one line on standard error that names it, exit code 2, and nothing written."""

import gzip
import io
import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

MISTAKES = {
    "unknown field": (["--config.sampling.num_step=5"], "num_steps"),
    "unknown section": (["--config.sampler.num_steps=5"], "sampling"),
    "unknown model": (["--config.models.a_unett.seed=1"], "a_unet"),
    "wrong type": (["--config.noise.n=many"], "noise.n"),
    "float for int": (["--config.noise.n=1.5"], "noise.n"),
    "unknown flag": (["--wrokdir=x"], "wrokdir"),
    "unknown mode": (["--mode=studdy"], "mode"),
    "unknown scale": ([], "lab", ":lob"),
    "a stray word": (["now"], "now"),
    "unet size": (
        ["--config.data.size=9", "--config.models.b_uvit.network.patch=3"],
        "data.size",
    ),
    "patch": (["--config.models.b_uvit.network.patch=3"], "models.b_uvit.network.patch"),
    "too many images": (["--config.data.n_train=5000"], "at most 1697"),
    "too many held out": (["--config.data.n_heldout=1797"], "data.n_heldout"),
    "kernel": (["--config.models.b_uvit.kernel=sub_vp"], "did you mean 'subvp'"),
    "preconditioning": (["--config.models.b_uvit.preconditioning=edn"], "did you mean 'edm'"),
    "objective": (["--config.models.b_uvit.objective=x"], "models.b_uvit.objective"),
    "family": (["--config.models.gaussian.family=gauss"], "did you mean 'gaussian'"),
    "solver": (["--config.sampling.solver=huen"], "did you mean 'heun'"),
    "source": (["--config.data.source=digit"], "did you mean 'digits'"),
    "descriptor": (["--config.scoring.descriptor=pixel"], "did you mean 'pixels'"),
    "part": (["--config.data.part=C"], "data.part"),
    "sigma order": (["--config.sampling.sigma_min=90.0"], "below sigma_max"),
    "no steps": (["--config.sampling.num_steps=0"], "at least 1"),
    "no noises": (["--config.noise.n=0"], "noise.n"),
    "no training steps": (["--config.training.steps=0"], "training.steps"),
    "model training": (["--config.models.b_uvit.training.batch_size=0"], "models.b_uvit.training"),
    "accumulation": (["--config.training.accumulate=3"], "training.accumulate"),
    "weights absent": (["--config.models.b_uvit.weights=/no/such"], "models.b_uvit.weights"),
    "noise absent": (["--config.noise.path=/no/such.npz"], "noise.path"),
    "data absent": (
        ["--config.data.source=fashion_mnist", "--config.data.path=/no/such"],
        "dataset-fashion-mnist",
    ),
    "rate": (["--config.scoring.rp_rate=0.0"], "scoring.rp_rate"),
    "an endless clip": (["--config.training.grad_clip=inf"], "training.grad_clip"),
    "not a number": (["--config.sampling.rtol=nan"], "sampling.rtol"),
    "endless noise": (["--config.sampling.sigma_max=inf"], "sampling.sigma_max"),
    "beta2": (["--config.training.beta2=1.0"], "training.beta2"),
    "sigma_data": (["--config.models.b_uvit.sigma_data=0.0"], "models.b_uvit.sigma_data"),
    "a negative seed": (["--config.data.seed=-1"], "data.seed"),
    "a huge seed": (["--config.noise.seed=4294967296"], "noise.seed"),
    "a model's seed": (["--config.models.b_uvit.seed=-1"], "models.b_uvit.seed"),
    "labels": (["--config.models.b_uvit.network.num_classes=3"], "network.num_classes"),
    "dropout": (["--config.models.b_uvit.network.dropout=1.0"], "network.dropout"),
    "multipliers": (["--config.models.a_unet.network.multipliers=(0,1)"], "multipliers"),
    "blocks": (["--config.models.a_unet.network.num_blocks=0"], "network.num_blocks"),
    "one image": (["--config.data.n_train=1"], "data.n_train"),
    "a model's images": (["--config.models.a_unet.n_train=5000"], "models.a_unet.n_train"),
    "a model's part": (["--config.models.a_unet.part=C"], "models.a_unet.part"),
    "beyond the kernel": (
        ["--config.sampling.grid=uniform_t", "--config.sampling.kernel=ve"],
        "sampling.sigma_min",
    ),
    "two mistakes": (["--config.noise.n=50", "--config.sampling.num_steps=abc"], "num_steps='abc'"),
    "a flag beside a field": (["--config.noise.n=50", "--wrokdir=x"], "wrokdir"),
    "report of nothing": (["--mode=report"], "run --mode=study"),
    "a shard of none": (["--shard=0/0"], "--shard"),
    "a shard too many": (["--shard=2/2"], "0 <= i < n"),
    "a shard before the first": (["--shard=-1/2"], "--shard"),
    "a shard in words": (["--shard=first"], "--shard"),
    "endless patience": (["--wait_seconds=nan"], "--wait_seconds"),
    "negative patience": (["--wait_seconds=-1"], "--wait_seconds"),
    "patience in words": (["--wait_seconds=long"], "wait_seconds"),
    "sharding": (["--config.loop.state_sharding=split"], "loop.state_sharding"),
    "a pack of none": (["--config.loop.pack=0"], "loop.pack"),
    "pack": (["--config.loop.pack=fast"], "'auto', 'off' or a number"),
    "a group of devices": (["--config.loop.fsdp=3"], "loop.fsdp=3: must divide the number"),
    "no group": (["--config.loop.fsdp=0"], "loop.fsdp"),
    "a job with no coordinator": (["--num_processes=2"], "must come with --coordinator"),
    "a process of no job": (["--process_id=1"], "must come with --coordinator"),
    "a coordinator with no port": (
        ["--coordinator=localhost", "--num_processes=2", "--process_id=0"],
        "host:port",
    ),
    "a job of unknown size": (["--coordinator=localhost:1234", "--process_id=0"], "num_processes"),
    "a process of unknown number": (
        ["--coordinator=localhost:1234", "--num_processes=2"],
        "--process_id",
    ),
    "a process too many": (
        ["--coordinator=localhost:1234", "--num_processes=2", "--process_id=2"],
        "0 to 1",
    ),
    "a pod of nothing": (["--plan_devices=0"], "--plan_devices"),
}


def refused(result, word):
    code, _, err = result
    assert code == 2, (code, err)
    assert err.count("\n") == 1 and "Traceback" not in err, err
    assert word in err, err


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, tiny, tmp_path, reprojax):
    arguments, word, *scale = MISTAKES[case]
    workdir = tmp_path / "w"
    config = f"--config={tiny}{''.join(scale)}"
    refused(reprojax(config, f"--workdir={workdir}", *arguments), word)
    assert not workdir.exists()


def test_a_field_that_a_config_file_invents(tmp_path, reprojax):
    path = tmp_path / "mine.py"
    path.write_text(
        "from reprojax import config as rc\n"
        "def get_config(scale=''):\n"
        "    config = rc.default_config('mine')\n"
        "    config.noise.m = 3\n"
        "    return config\n"
    )
    refused(reprojax(f"--config={path}", f"--workdir={tmp_path / 'w'}"), "mine.py")
    assert not (tmp_path / "w").exists()


def test_no_config_or_a_missing_one(tmp_path, reprojax):
    refused(reprojax(), "--config=configs/quickstart.py")
    refused(reprojax(f"--config={tmp_path / 'no.py'}"), "no.py")


def test_a_job_that_is_not_there(tiny, tmp_path, start):
    process = start(f"--config={tiny}", f"--workdir={tmp_path / 'w'}", "--distributed")
    _, err = process.communicate()
    refused((process.returncode, "", err), "--coordinator")


def test_a_batch_that_does_not_divide_over_devices(tiny, tmp_path, start):
    process = start(
        f"--config={tiny}",
        f"--workdir={tmp_path / 'w'}",
        "--config.training.batch_size=12",
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )
    _, err = process.communicate()
    refused((process.returncode, "", err), "multiple of the 8 devices")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("kind", ["a file", "a foreign folder", "below a file"])
def test_a_workdir_that_cannot_be_ours(kind, tiny, tmp_path, reprojax):
    target = tmp_path / "target"
    if kind == "a foreign folder":
        target.mkdir()
        (target / "thesis.tex").write_text("precious")
    else:
        target.write_text("precious")
    workdir = target / "below" if kind == "below a file" else target
    refused(reprojax(f"--config={tiny}", f"--workdir={workdir}", "--overwrite"), "workdir")
    left = target / "thesis.tex" if target.is_dir() else target
    assert left.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_without_permission(tiny, tmp_path, reprojax):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(reprojax(f"--config={tiny}", f"--workdir={tmp_path / 'closed' / 'w'}"), "workdir")


def png(size=8):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size), 7, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def broken_data(kind, folder):
    """Writes a broken set; gives its source name, path and a word of the complaint."""
    if kind == "truncated idx":
        header = struct.pack(">HBBIII", 0, 8, 3, 60000, 28, 28)
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            (folder / name).write_bytes(gzip.compress(header + b"\0" * 1000))
        return "fashion_mnist", folder, "idx3-ubyte"
    if kind == "truncated gzip":
        data = gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 10, 28, 28) + os.urandom(7840))
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            (folder / name).write_bytes(data[:-2000])
        return "fashion_mnist", folder, "idx3-ubyte"
    path = folder / "set.npz"
    if kind == "object array":
        np.savez(path, images=np.array([{"a": 1}, None], dtype=object))
    elif kind == "nan pixels":
        np.savez(path, images=np.full((300, 8, 8), np.nan, np.float32))
    elif kind == "truncated npz":
        np.savez(path, images=np.zeros((300, 8, 8), np.uint8))
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "truncated image":
        (folder / "1.png").write_bytes(png())
        (folder / "2.png").write_bytes(png()[:40])
        return "folder", folder, "2.png"
    elif kind == "truncated zip":
        with zipfile.ZipFile(folder / "set.zip", "w") as file:
            file.writestr("1.png", png())
        (folder / "set.zip").write_bytes((folder / "set.zip").read_bytes()[:30])
        return "folder", folder / "set.zip", "set.zip"
    return "npz", path, "set.npz"


@pytest.mark.parametrize(
    "kind",
    [
        "truncated idx",
        "truncated gzip",
        "object array",
        "nan pixels",
        "truncated npz",
        "truncated image",
        "truncated zip",
    ],
)
def test_broken_data_is_one_line(kind, tiny, tmp_path, reprojax):
    folder = tmp_path / "data"
    folder.mkdir()
    source, path, word = broken_data(kind, folder)
    workdir = tmp_path / "w"
    arguments = [f"--config.data.source={source}", f"--config.data.path={path}"]
    refused(reprojax(f"--config={tiny}", f"--workdir={workdir}", *arguments), word)
    assert not workdir.exists()
