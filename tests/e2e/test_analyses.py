"""Analyses after the scores: each leaves its JSON and figure, resumes, and names what is wrong."""

import json

import pytest

MORE = """
    config.models.a_unet.sampling.update(solver="ddim", num_steps=9)
    rc.add_analysis(config, "shared_solver", cells=("b_uvit", "a_unet", "seed1"), n=40,
                    paper=("UViT", "EDMv1", ""), ceiling=("b_uvit", "seed1"))
    rc.add_analysis(config, "solvers", cells=("gaussian", "optimum"), n=16, nfe=(8,), limit_nfe=40,
                    solvers=("ddim", "unipc_2", "ddpm"))
    rc.add_analysis(config, "encoding", cells=("b_uvit", "gaussian"), n=16, num_steps=6)
    rc.add_analysis(config, "jacobian", cells=("gaussian", "optimum"), n=2, sigmas=(0.1, 1.0))
    rc.add_analysis(config, "ceiling", cells=("optimum", "gaussian"), n=16, num_steps=(4, 20))
    return config
"""
LOCAL = """
    rc.add_analysis(config, "local", cells=("b_uvit", "gaussian", "optimum"), n=8, calibrate_on=2,
                    radii=(0, 7), sigmas=(0.1, 1.0))
    return config
"""
NAMES = ("solvers", "encoding", "jacobian", "ceiling", "shared_solver")


def extended(tiny, lines):
    text = tiny.read_text()
    tiny.write_text(text[: text.rindex("    return config")] + lines.lstrip("\n"))
    return f"--config={tiny}"


@pytest.fixture
def config(tiny):
    return extended(tiny, MORE)


def test_every_analysis_leaves_numbers_and_a_figure(config, reprojax, tmp_path):
    workdir = tmp_path / "w"
    code, out, err = reprojax(config, f"--workdir={workdir}")
    assert (code, err) == (0, "") and "analysed 5" in out
    assert "Evaluations until RP" in out and "own error" in out and "Rank of the" in out
    results = {n: json.loads((workdir / "analyses" / f"{n}.json").read_text()) for n in NAMES}
    page = (workdir / "report" / "index.html").read_text()
    for figure in ("solvers", "encoding", "jacobian", "ceiling", "transport", "families"):
        assert list((workdir / "figures").glob(f"{figure}*.png")), figure
    for heading in (
        "Encoded by one model",
        "own error",
        "How fast each solver",
        "one solver for all",
    ):
        assert heading in page

    rows = results["solvers"]["rows"]
    by_solver = {(r["cell"], r["solver"]): r for r in rows}
    assert len(by_solver) == 6 and results["solvers"]["limit"]["nfe"] == 39
    mine = {name: by_solver["gaussian", name] for name in ("ddim", "unipc_2", "ddpm")}
    assert mine["unipc_2"]["pfd"] < mine["ddim"]["pfd"] < mine["ddpm"]["pfd"]
    assert mine["ddpm"]["stochastic"] and not mine["ddim"]["stochastic"]

    trips = {(r["cell"], r["source"]): r for r in results["encoding"]["round_trips"]}
    assert set(trips) == {(c, s) for c in ("b_uvit", "gaussian") for s in ("heldout", "samples")}
    assert trips["b_uvit", "samples"]["noise_correlation"] > 0.9
    assert len(results["encoding"]["transplants"]) == 4 and len(results["encoding"]["latents"]) == 1

    ranks = {(r["cell"], r["sigma"]): r["rank"] for r in results["jacobian"]["rows"]}
    assert ranks["gaussian", 0.1] > ranks["gaussian", 1.0] > 0
    landed = {r["cell"]: r for r in results["ceiling"]["rows"] if "Heun" in r["change"]}
    assert 0 <= landed["optimum"]["other_image"] <= 1
    assert landed["gaussian"]["other_image"] is None

    native, shared = (
        {(r["a"], r["b"]): r for r in results["shared_solver"][k]} for k in ("native", "shared")
    )
    seeds, across = ("b_uvit", "seed1"), ("b_uvit", "a_unet")
    assert len(native) == len(shared) == 3 and native[seeds] == shared[seeds]
    assert native[across] != shared[across]  # only a_unet has a sampler of its own
    summary = results["shared_solver"]["summary"]
    assert summary["native"]["rp"]["mean"] == native[across]["rp"]
    assert summary["native"]["rp"]["ceiling"] == native[seeds]["rp"]

    scores = json.loads((workdir / "scores.json").read_text())
    own = next(r for r in scores["pairs"] if (r["a"], r["b"], r["score"]) == (*across, "rp"))
    assert own["value"] == native[across]["rp"]
    assert len(scores["distances"]) == 10 and len(scores["transport"]) == 5
    assert len(scores["rp_curves"]["rows"]) == 10

    code, out, _ = reprojax(config, f"--workdir={workdir}")
    assert code == 0 and "nothing recomputed" in out
    (workdir / "analyses" / "jacobian.json").unlink()
    code, out, _ = reprojax(config, f"--workdir={workdir}")
    assert code == 0 and "analysed 1" in out
    again = json.loads((workdir / "analyses" / "jacobian.json").read_text())
    assert again == results["jacobian"]


@pytest.mark.parametrize(
    "mistake, named",
    [
        ("--config.data.n_heldout=0", "data.n_heldout"),
        ("--config.analyses.local.cells=('optimum',)", "must be a denoising network"),
        ("--config.analyses.local.radii=(-1,)", "analyses.local.radii"),
    ],
)
def test_what_the_local_score_machine_needs_is_checked_first(
    mistake, named, tiny, reprojax, tmp_path
):
    config = extended(tiny, LOCAL)
    code, _, err = reprojax(config, f"--workdir={tmp_path / 'w'}", mistake)
    assert code == 2 and named in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_the_local_score_machine_is_set_beside_a_network(tiny, reprojax, tmp_path):
    workdir = tmp_path / "w"
    code, _, err = reprojax(extended(tiny, LOCAL), f"--workdir={workdir}")
    assert (code, err) == (0, "")
    local = json.loads((workdir / "analyses" / "local.json").read_text())
    assert [m["name"] for m in local["models"]] == ["local", "gaussian", "optimum"]
    assert len(local["models"][0]["values"]) == 8 and set(local["calibration"]["chosen"]) <= {0, 7}
    assert [d["name"] for d in local["differences"]] == ["local - gaussian", "local - optimum"]
    assert list((workdir / "figures").glob("local*.png"))


@pytest.mark.parametrize(
    "mistake, named",
    [
        ("--config.analyses.solvers.solvers=('ddim','huen')", "did you mean 'heun'"),
        ("--config.analyses.solvers.cells=('b_uvitt',)", "did you mean 'b_uvit'"),
        ("--config.analyses.solvers.nfes=(1,)", "did you mean 'nfe'"),
        ("--config.analyses.solver.nfe=(1,)", "did you mean 'solvers'"),
        ("--config.analyses.encoding.num_steps=0", "analyses.encoding.num_steps"),
        ("--config.analyses.jacobian.eta=1.0", "analyses.jacobian.eta"),
        ("--config.analyses.ceiling.num_steps=(1,2,3)", "analyses.ceiling.num_steps"),
        ("--config.analyses.jacobian.n=1", "analyses.jacobian.n"),
        ("--config.analyses.solvers.tolerances=(0.0,)", "analyses.solvers.tolerances"),
        ("--config.sampling.solver=ddpm", "for the analysis 'encoding'"),
        ("--config.sampling.solver=tsit5", "for the analysis 'encoding'"),
        ("--config.models.gaussian.family=population", "models.gaussian.family"),
        ("--config.sampling.noise_seed=-1", "sampling.noise_seed"),
    ],
)
def test_mistakes_are_named_before_anything_runs(mistake, named, config, reprojax, tmp_path):
    code, _, err = reprojax(config, f"--workdir={tmp_path / 'w'}", mistake)
    assert code == 2 and named in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "w").exists()
