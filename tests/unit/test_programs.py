"""Letting go of compiled programs before the kernel allows no more memory mappings."""

import jax
import jax.numpy as jnp
import pytest

from reprojax.runtime import programs


@pytest.fixture
def held():
    """A function that is compiled, and how many programs it keeps."""
    times = jax.jit(lambda x: 2 * jnp.cos(x))
    times(jnp.ones(3))
    return times._cache_size


@pytest.mark.parametrize("counts", [None, (499, 1000)])
def test_below_half_of_the_limit_programs_are_kept(held, monkeypatch, counts):
    monkeypatch.setattr(programs, "mappings", lambda: counts)
    assert not programs.make_room()
    assert held() == 1


def test_from_half_of_the_limit_on_none_is_kept(held, monkeypatch):
    monkeypatch.setattr(programs, "mappings", lambda: (500, 1000))
    assert programs.make_room()
    assert held() == 0


@pytest.mark.skipif(not programs.LIMIT.exists(), reason="the kernel has no such limit")
def test_letting_go_gives_mappings_back(monkeypatch):
    before, limit = programs.mappings()
    kept = [jax.jit(lambda x, k=k: jnp.linalg.norm(jnp.sin(x @ x) + k)) for k in range(20)]
    for function in kept:
        function(jnp.ones((4, 4)))
    full, _ = programs.mappings()
    assert before < full < limit
    monkeypatch.setattr(programs, "FULL", 0.0)
    assert programs.make_room()
    assert programs.mappings()[0] < full - (full - before) / 2


def test_without_the_kernels_files_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "MAPPINGS", tmp_path / "none")
    assert programs.mappings() is None
