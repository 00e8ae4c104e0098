"""What every test shares: the CPU, strict broadcasting, and slow tests only when asked for."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read by jax when it is imported

import jax
import pytest

# A silent [b] against [b, h, w, c] broadcast becomes a failure.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    if os.environ.get("REPROJAX_SLOW") == "1":
        return
    skip = pytest.mark.skip(reason="slow: set REPROJAX_SLOW=1 to run it")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parents[1]
