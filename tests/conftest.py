"""What every test shares: the CPU, strict broadcasting, and slow tests only when asked for."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read by jax when it is imported
# Most of a quick test is compilation, which is twice as quick without optimisations; the tests that
# run for minutes want the programs that users run, and so do those of `AS_SHIPPED`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", str(os.environ.get("REPROJAX_SLOW") != "1"))

import jax
import pytest

from reprojax.runtime.programs import make_room

# A silent [b] against [b, h, w, c] broadcast becomes a failure.
jax.config.update("jax_numpy_rank_promotion", "raise")


AS_SHIPPED = ("numerics", "test_sampling")  # folders and files whose claims are about rounding
QUICKLY = ("test_every_config",)  # slow for its many programs, which run for milliseconds each


@pytest.fixture(scope="module", autouse=True)
def compilation(request):
    """With all optimisations, or with few, where a folder or file asks for it."""
    before = jax.config.read("jax_disable_most_optimizations")
    names = {request.path.parent.name, request.path.stem}
    if names & {*AS_SHIPPED, *QUICKLY}:
        jax.config.update("jax_disable_most_optimizations", bool(names & set(QUICKLY)))
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def room():
    """For the programs of the tests that follow in the same process."""
    yield
    make_room()


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
