"""Analyses: their settings, and the arithmetic that needs no samples."""

from dataclasses import replace

import pytest

from reprojax.analyses.shared_solver.measure import SharedSolver
from reprojax.analyses.solvers.measure import (
    DENOISER_SOLVERS,
    SolverSweep,
    reaches,
    samplers_at,
    steps_for,
)
from reprojax.analyses.table import ANALYSES, make_analysis, show_modules
from reprojax.diffusion.grids import GridSpec
from reprojax.errors import InputError
from reprojax.sampling.flow import SamplerSpec

SAMPLER = SamplerSpec()
SEVEN = {"cells": list("abcdefg")}


def test_every_analysis_has_its_folder(repo_root):
    folders = {p.parent.name for p in (repo_root / "reprojax" / "analyses").glob("*/measure.py")}
    assert folders == set(ANALYSES) == set(show_modules())


@pytest.mark.parametrize("solver", DENOISER_SOLVERS)
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_a_solver_spends_what_it_may_and_no_more(solver, end):
    sampler = replace(SAMPLER, grid=GridSpec(end=end))

    def cost(steps):
        grid = GridSpec(num_steps=steps, end=end)
        return replace(sampler, solver=solver, grid=grid).expected_nfe

    for nfe in (5, 8, 20, 31):
        steps = steps_for(sampler, solver, nfe)
        assert cost(steps) <= nfe < cost(steps + 1)


def test_equal_steps_are_run_once_and_too_few_evaluations_not_at_all():
    settings = SolverSweep(cells=("a",), nfe=(1, 2, 3, 4, 6, 7))
    sampler = replace(SAMPLER, grid=GridSpec(end="sigma_min"))
    plans = list(samplers_at(sampler, "heun", settings))
    assert [plan.grid.num_steps for plan in plans] == [1, 2, 3]
    adaptive = list(samplers_at(SAMPLER, "tsit5", settings))
    assert [plan.rtol for plan in adaptive] == list(settings.tolerances)


def test_a_level_is_reached_where_rp_stays_above_it():
    shares = {5: 0.5, 8: 0.92, 12: 0.88, 16: 0.95, 20: 1.0}
    rows = [{"cell": "a", "solver": "x", "nfe": n, "rp": rp} for n, rp in shares.items()]
    rows += [{"cell": "a", "solver": "y", "nfe": 5, "rp": 0.1}]
    x, y = reaches(rows)
    assert (x["nfe_90"], x["nfe_99"]) == (16, 20)
    assert (y["nfe_90"], y["nfe_99"]) == (None, None)


@pytest.mark.parametrize(
    "name, values, field",
    [
        ("solver", {}, "did you mean 'solvers'"),
        ("solvers", {}, r"analyses\.solvers\.cells"),
        ("solvers", {"cells": ["a"], "nfe": [0]}, r"analyses\.solvers\.nfe"),
        ("solvers", {"cells": ["a"], "solvers": ["consistency"]}, r"analyses\.solvers\.solvers"),
        ("local", {"cells": ["a"], "radius": [0]}, r"analyses\.local\.radius"),
        ("ceiling", {"cells": ["a"], "sigma_max": [0.0]}, r"analyses\.ceiling\.sigma_max"),
        ("shared_solver", {"cells": ["a"]}, r"analyses\.shared_solver\.cells"),
        ("shared_solver", {"cells": ["a", "a"]}, r"analyses\.shared_solver\.cells"),
        ("shared_solver", {**SEVEN, "n": 1}, r"analyses\.shared_solver\.n=1:"),
        ("shared_solver", {**SEVEN, "ceiling": ["a"]}, r"analyses\.shared_solver\.ceiling"),
        ("shared_solver", {**SEVEN, "ceiling": ["a", "a"]}, r"analyses\.shared_solver\.ceiling"),
        (
            "shared_solver",
            {**SEVEN, "ceiling": ["a", "x"]},
            r"analyses\.shared_solver\.ceiling='x'",
        ),
        ("shared_solver", {**SEVEN, "paper": ["CT"]}, r"analyses\.shared_solver\.paper.*7 names"),
        ("shared_solver", {**SEVEN, "paper": ["UVit", *[""] * 6]}, "did you mean 'UViT'"),
        ("shared_solver", {**SEVEN, "paper": ["CT", "CT", *[""] * 5]}, "two cells"),
        (
            "shared_solver",
            {**SEVEN, "ceiling": ["a", "b"], "paper": ["CT", "UViT", *[""] * 5]},
            r"analyses\.shared_solver\.paper.*second seed, b",
        ),
    ],
)
def test_settings_are_checked_and_named(name, values, field):
    with pytest.raises(InputError, match=field):
        make_analysis(name, values)


def test_settings_of_the_shared_solver_that_are_right():
    settings = make_analysis("shared_solver", {**SEVEN, "ceiling": ["a", "b"]})
    assert settings == SharedSolver(tuple("abcdefg"), 1024, ("a", "b"), ())
    named = ["DDPMv4", "", "DDPMv6", "", "", "", ""]
    assert make_analysis("shared_solver", {**SEVEN, "paper": named}).paper == tuple(named)
