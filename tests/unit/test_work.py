"""Workers on one folder, with cells that cost nothing: order, failures, shards, lost claims."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from reprojax import config as rc
from reprojax.errors import DivergedError, EndedPeerError, FailedCellsError, InterruptedRunError
from reprojax.runtime.console import Reporter
from reprojax.runtime.files import write_bytes, write_json, write_npz
from reprojax.scoring.scores import Scores
from reprojax.study import board as boards
from reprojax.study import workers
from reprojax.study.board import State
from reprojax.study.runner import prepare, run_study
from reprojax.study.scores import read_scores
from reprojax.study.stages import is_sampled, is_trained
from reprojax.study.workers import Share

SMALL = dict(width=8, depth=2, num_heads=1, patch=4)


def make_config(names="abcd", **teachers):
    config = rc.default_config("tiny")
    config.data.update(n_train=50, n_heldout=20)
    config.noise.n = 8
    config.sampling.num_steps = 2
    for i, name in enumerate(names):
        more = {"teacher": teachers[name]} if name in teachers else {}
        rc.add_models(config, **{name: rc.network_model("uvit", seed=i, network=SMALL, **more)})
    rc.add_models(config, gaussian=rc.closed_form("gaussian"))
    return config


class Stages:
    """Stand-ins for training, sampling and scoring, which write files as these do."""

    def __init__(self, monkeypatch):
        self.calls: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.meanwhile = lambda context, cell: None
        for name in ("train_cell", "sample_cell", "score_study"):
            monkeypatch.setattr(workers, name, getattr(self, name))
        monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)

    def train_cell(self, context, cell):
        self.context = context
        if is_trained(context, cell):
            return False
        self.calls.append(f"train {cell.name}")
        self.meanwhile(context, cell)
        if cell.name in self.broken:
            raise self.broken[cell.name]
        context.stop.require_claim()
        files = context.files(cell)
        files.own(files.weights)
        write_bytes(files.weights, cell.name.encode())
        return True

    def sample_cell(self, context, cell):
        if is_sampled(context, cell):
            return False
        self.calls.append(f"sample {cell.name}")
        files = context.files(cell)
        files.own(files.samples)
        write_npz(files.samples, images=np.zeros(1))
        return True

    def score_study(self, context, identity, missing=()):
        self.calls.append("score")
        assert context.claims.taken("scores")
        scores = Scores({}, study={"name": "tiny", "hash": identity}, missing=tuple(missing))
        write_json(context.workdir.own("scores.json"), scores.to_json())
        return 0


@pytest.fixture
def stages(monkeypatch):
    return Stages(monkeypatch)


@pytest.fixture
def go(tmp_path):
    """Runs a worker; gives what it printed."""

    def call(config, **options):
        text = io.StringIO()
        reporter = Reporter(Console(file=text, width=200))
        prepared = prepare(rc.make_study(config))
        call.prepared = prepared
        options = {"last": "score", "share": Share(wait_seconds=0), **options}
        try:
            run_study(prepared, tmp_path / "w", reporter=reporter, **options)
        finally:
            call.said = text.getvalue()
        return call.said

    return call


def test_a_worker_does_all_in_order_and_then_nothing(stages, go, tmp_path):
    said = go(make_config())
    cells = [f"{what} {name}" for name in "abcd" for what in ("train", "sample")]
    assert stages.calls == [*cells, "sample gaussian", "score"]
    assert "cells: 2 done, 3 open; about" in said and "cells: 5 done\n" in said
    assert "5 cells; done this time: trained 4, sampled 5, described 0, scored 1" in said
    assert list((tmp_path / "w" / "claims").iterdir()) == []
    stages.calls.clear()
    assert "nothing recomputed" in go(make_config()) and stages.calls == []


def test_the_time_left_is_from_what_cells_took_here(stages, go):
    config = make_config()
    config.models.d.training.steps = 2 * config.training.steps
    stages.broken = {"c": ValueError("x")}
    with pytest.raises(FailedCellsError):
        go(config, last="train")
    context = stages.context
    for cell in context.study.cells[:2]:
        context.files(cell).history.write_text(
            json.dumps({"done": "trained", "seconds": 100.0}) + "\n{torn"
        )
    states = dict.fromkeys("ab", State.DONE) | {"c": State.FAILED, "gaussian": State.DONE}

    def line(d, **options):
        board = boards.Board(context.study.cells, states | {"d": d}, frozenset(), frozenset())
        return boards.progress_line(context, board, sample=False, **options)

    d = context.files(context.study.cells[3])
    d.weights.unlink()
    d.history.unlink()
    assert line(State.OPEN) == "cells: 3 done, 1 failed, 1 open; about 3.3 min left"
    assert line(State.RUNNING) == "cells: 3 done, 1 running, 1 failed; about 100 s left"
    assert line(State.RUNNING, idle=False).endswith("about 50 s left")


def test_a_failed_cell_does_not_stop_the_rest(stages, go, tmp_path):
    stages.broken = {"b": RuntimeError("out of\nmemory"), "c": DivergedError("c: loss")}
    with pytest.raises(FailedCellsError, match=r"2 of 5 cells failed: b, c.*RuntimeError: out of"):
        go(make_config())
    assert "train d" in stages.calls and "2 failed" in go.said
    (path,) = tmp_path.glob("w/cells/b-*/failed.json")
    failure = json.loads(path.read_text())
    assert failure["error"] == "RuntimeError" and failure["message"] == "out of memory"
    assert "Traceback" in failure["traceback"] and failure["host"] and failure["time"]
    scores = json.loads((tmp_path / "w" / "scores.json").read_text())
    assert scores["missing"] == ["b", "c"]
    assert read_scores(tmp_path / "w", go.prepared.identity) is None
    stages.calls.clear()
    with pytest.raises(FailedCellsError) as raised:
        go(make_config())
    assert stages.calls == [] and "\n" not in str(raised.value)
    assert raised.value.exit_code == 4
    stages.broken = {}
    go(make_config(), share=Share(retry_failed=True))
    assert stages.calls == ["train b", "sample b", "train c", "sample c", "score"]
    assert read_scores(tmp_path / "w", go.prepared.identity).missing == ()
    assert not list(tmp_path.glob("w/cells/*/failed.json"))


def test_where_only_cells_are_asked_for_a_failure_means_no_scores(stages, go, tmp_path):
    stages.broken = {"a": ValueError("x")}
    with pytest.raises(FailedCellsError, match="--retry_failed"):
        go(make_config(), last="sample")
    assert "score" not in stages.calls and "sample d" in stages.calls


def test_if_every_training_diverged_that_is_the_error(stages, go):
    stages.broken = {name: DivergedError(f"{name}: loss is not finite") for name in "ab"}
    with pytest.raises(DivergedError, match="a: loss is not finite"):
        go(make_config("abc", c="b"))  # the student of b can never begin
    assert "score" not in stages.calls and "train c" not in stages.calls


def test_a_student_waits_for_its_teacher_and_shares_its_fate(stages, go):
    stages.broken = {"b": ValueError("x")}
    with pytest.raises(FailedCellsError, match="2 of 4 cells failed: b, c"):
        go(make_config("abc", c="b"))
    assert "train c" not in stages.calls
    stages.broken = {}
    go(make_config("abc", c="b"), share=Share(retry_failed=True))
    assert stages.calls.index("train b") < stages.calls.index("train c")


def test_two_shards_one_after_the_other_are_the_whole(stages, go, tmp_path):
    said = go(make_config(), share=Share(0, 2))
    assert stages.calls == ["train a", "sample a", "train c", "sample c", "sample gaussian"]
    assert "3 of 5 cells are done" in said
    assert "nothing done this time; 3 of 5" in go(make_config(), share=Share(0, 2))
    stages.calls.clear()
    go(make_config(), share=Share(1, 2))
    assert stages.calls == ["train b", "sample b", "train d", "sample d", "score"]


def test_a_student_is_in_its_teacher_s_shard(stages, go):
    study = rc.make_study(make_config("abcd", b="a", d="b"))
    names = [[cell.name for cell in Share(i, 2).cells(study)] for i in range(2)]
    assert names == [["a", "b", "c", "d", "gaussian"], []]
    study = rc.make_study(make_config("abcd", c="b"))
    names = [[cell.name for cell in Share(i, 2).cells(study)] for i in range(2)]
    assert names == [["a", "gaussian"], ["b", "c", "d"]]


def test_a_failure_in_another_shard_is_answered_for_there(stages, go):
    stages.broken = {"b": ValueError("x")}
    with pytest.raises(FailedCellsError, match="1 of 5 cells failed: b"):
        go(make_config(), share=Share(1, 2))
    assert "score" not in stages.calls
    with pytest.raises(FailedCellsError):  # who finds all done scores, and says what is missing
        go(make_config(), share=Share(0, 2))
    assert stages.calls[-1] == "score"


def foreign_claim(context, name):
    """Another host takes over: its claim replaces ours."""
    text = f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken={'a' * 32}\nduration=60.0\n"
    write_bytes(context.claims.folder / f"{name}.claim", text.encode())
    return context.claims.folder / f"{name}.claim"


def test_a_worker_that_lost_its_claim_writes_no_more_and_goes_on(stages, go, tmp_path):
    def steal(context, cell):
        if cell.name == "b":
            foreign_claim(context, context.claim_name(cell))

    stages.meanwhile = steal
    said = go(make_config())
    assert "b: dropped; the claim on b-" in said and "4 of 5 cells are done" in said
    assert not list(tmp_path.glob("w/cells/b-*/weights.safetensors"))
    assert not list(tmp_path.glob("w/cells/b-*/failed.json"))
    assert "train d" in stages.calls and "score" not in stages.calls
    (claim,) = (tmp_path / "w" / "claims").iterdir()
    assert "elsewhere" in claim.read_text()


def test_what_breaks_after_a_claim_was_lost_is_no_failure(stages, go, tmp_path):
    stages.broken = {"b": OSError("somebody renamed it")}
    stages.meanwhile = lambda context, cell: foreign_claim(context, context.claim_name(cell))
    go(make_config())
    assert not list(tmp_path.glob("w/cells/*/failed.json"))


@pytest.mark.parametrize("error", [EndedPeerError("process 1 was lost", 1), InterruptedRunError()])
def test_what_ends_the_worker_is_no_failure_of_its_cell(error, stages, go, tmp_path):
    stages.broken = {"b": error}
    with pytest.raises(type(error)):
        go(make_config())
    assert not list((tmp_path / "w").glob("cells/*/failed.json"))
    assert list((tmp_path / "w" / "claims").iterdir()) == []
    stages.broken = {}
    go(make_config())
    assert stages.calls.count("train b") == 2 and stages.calls[-1] == "score"


def test_a_cell_settled_between_look_and_claim_is_not_done_again(stages, go):
    go(make_config(), last="train")
    context, cell = stages.context, stages.context.study.cells[0]
    for last, given in (("sample", True), ("train", False)):  # not sampled yet, but trained
        claim = workers.Worker(context, Share(), last, {}).claim(cell)
        assert (claim is not None) == given
        assert context.claims.taken(context.claim_name(cell)) == given
        if claim:
            claim.release()


def test_what_others_made_is_seen_where_folders_must_be_opened_for_it(stages, go, monkeypatch):
    """As on NFS, which remembers of a folder that is not opened what was not there."""
    go(make_config())
    opened = set()
    for module in (boards, workers):
        monkeypatch.setattr(module, "refresh", lambda *folders: opened.update(folders))

    def there(context, cell):
        return context.files(cell).path in opened and is_trained(context, cell)

    monkeypatch.setattr(boards, "is_trained", there)
    monkeypatch.setattr(workers, "read_scores", lambda path, identity: path in opened or None)
    stages.calls.clear()
    assert "nothing recomputed" in go(make_config()) and stages.calls == []


def test_the_cell_to_try_next():
    cells = rc.make_study(make_config("abc", c="b")).cells
    names = [cell.name for cell in cells]
    states = dict(zip(names, [State.RUNNING, State.OPEN, State.OPEN, State.DONE], strict=True))
    board = boards.Board(cells, states, frozenset("c"), frozenset())
    assert workers.next_cell(board, names).name == "b"  # what is open comes first
    assert workers.next_cell(board, names, {"b"}).name == "a"  # its owner may be dead
    assert workers.next_cell(board, names, {"a", "b"}) is None  # c waits for b, the rest is done
    assert workers.next_cell(board, ["c"]) is None


def test_a_worker_waits_for_who_scores_and_gives_up_only_if_told_to(stages, go, monkeypatch):
    go(make_config(), last="sample")
    path = foreign_claim(stages.context, "scores")
    said = go(make_config(), share=Share(wait_seconds=0.05))
    assert "score" not in stages.calls and "left to other workers" in said
    waits, wait = [], workers.Patience.wait

    def third_time_lucky(self):
        waits.append(path.exists())
        if len(waits) == 3:
            path.unlink()  # the other worker gives its claim back, and has not scored
        return wait(self)

    monkeypatch.setattr(workers.Patience, "wait", third_time_lucky)
    go(make_config(), share=Share())
    assert stages.calls[-1] == "score" and waits == [True] * 3


def test_a_study_that_gains_cells_keeps_the_old_ones_and_is_scored_again(stages, go, tmp_path):
    go(make_config("ab"))
    first = go.prepared.identity
    stages.calls.clear()
    go(make_config("abc"))
    assert stages.calls == ["train c", "sample c", "score"]
    assert read_scores(tmp_path / "w", go.prepared.identity) and go.prepared.identity != first


def test_a_worker_of_the_smaller_study_leaves_the_scores_alone(stages, go, tmp_path):
    larger = prepare(rc.make_study(make_config("abc")))

    def grow(context, cell):
        if cell.name == "b":
            run_study(larger, tmp_path / "w", last="train", share=Share(wait_seconds=0))

    stages.meanwhile = grow
    assert "gained cells meanwhile" in go(make_config("ab"))
    assert "score" not in stages.calls and "sample b" in stages.calls
