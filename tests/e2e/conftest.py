"""A small study as a config file, and the command line in this process or in one of its own."""

import os
import subprocess
import sys
import textwrap

import pytest
from absl import flags

TINY = """
from reprojax import config as rc


def get_config(scale=""):
    rc.require_scale(scale, ["lab"])
    config = rc.default_config("tiny")
    config.data.n_train = 200
    config.data.n_heldout = 100
    config.noise.n = 40
    config.sampling.num_steps = 5
    config.sampling.batch_size = 8
    config.training.steps = 30
    config.training.batch_size = 16
    config.training.warmup_steps = 3
    config.loop.checkpoint_every = 10
    config.loop.log_every = 5
    config.loop.eval_every = 15
    small = dict(width=16, depth=2, num_heads=2, patch=4)
    rc.add_models(
        config,
        b_uvit=rc.network_model("uvit", network=small),
        a_unet=rc.network_model(
            "unet", network=dict(width=4, multipliers=(1, 1), num_blocks=1, attention=())
        ),
        seed1=rc.network_model("uvit", seed=1, network=small),
        optimum=rc.closed_form("optimum"),
        gaussian=rc.closed_form("gaussian"),
    )
    return config
"""

FLAGS = ("config", "workdir", "mode", "dry_run", "overwrite")
FLAGS += ("retry_failed", "shard", "wait_seconds")
FLAGS += ("distributed", "coordinator", "num_processes", "process_id", "plan_devices")


@pytest.fixture
def tiny(tmp_path):
    """Path of a config file of a study that takes seconds."""
    path = tmp_path / "tiny_config.py"
    path.write_text(textwrap.dedent(TINY))
    return path


@pytest.fixture
def reprojax(capsys, monkeypatch):
    """Runs the command line in this process; gives (exit code, stdout, stderr)."""
    from reprojax import main as entry

    def call(*arguments):
        for name in list(flags.FLAGS):
            if name.startswith("config."):  # overrides become flags, once per process
                delattr(flags.FLAGS, name)
            elif name in FLAGS:
                flags.FLAGS[name].unparse()
        capsys.readouterr()
        argv = ["reprojax", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)  # where config_flags looks for overrides
        code = entry.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def start(repo_root, tmp_path):
    """Starts the command line in a process of its own, in an empty folder."""

    def popen(*arguments, **options):
        command = [sys.executable, "-m", "reprojax.main", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(repo_root), **options.pop("env", {})}
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return popen
