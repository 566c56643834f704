"""Which checkpoint a run continues from, whatever a crash has left of them; without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.config import RunConfig
from bearray.errors import ResumeError
from bearray.runs import Storage
from bearray.training import trainer
from bearray.training.events import EVENTS
from bearray.training.recovery import RECORD, recover
from bearray.training.written import KEEP, KEPT, SCORE, epoch_reports
from tests.fuzz.models import save_micro_checkpoint

SCORES = {1: 0.2, 2: 0.5, 3: 0.1, 4: 0.3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_micro_checkpoint(folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, saved: Path) -> Callable[..., Storage]:
    """`make({2, 4})`: a run of four epochs that has the checkpoints of these."""

    def build(epochs: set[int], scores: dict[int, float] = SCORES) -> Storage:
        run = Storage(str(tmp_path / "run"))
        run.write_lines(
            "metrics.jsonl",
            rows(scores),
        )
        for epoch in epochs:
            state = json.loads((saved / "state.json").read_text()) | {"epoch": epoch}
            run.put_folder(f"checkpoints/{name(epoch)}", saved, last="state.json")
            run.write_json(f"checkpoints/{name(epoch)}/state.json", state)
        recover(run)  # writes the record
        return run

    return build


def name(epoch: int) -> str:
    return f"checkpoint_2026-01-0{epoch}"


def record(run: Storage) -> tuple[list[str], str]:
    """The checkpoints that Ray will know, worst first, and the one it continues from."""
    told = run.child("checkpoints").read_json(RECORD)
    return [r["checkpoint_dir_name"] for r in told["checkpoint_results"]], told["latest_checkpoint_result"][
        "checkpoint_dir_name"
    ]


def events(run: Storage) -> list[str]:
    return [row["event"] for row in run.read_lines(EVENTS)]


def damage(run: Storage, epoch: int, file: str) -> None:
    path = Path(run.root) / "checkpoints" / name(epoch) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rows(scores: dict[int, float]) -> list[dict[str, float | str]]:
    """Of metrics.jsonl; an epoch that scores -1 was not validated."""
    return [{"kind": "epoch", "epoch": e, **({} if s < 0 else {SCORE: s})} for e, s in scores.items()]


def kept(scores: dict[int, float]) -> list[set[int]]:
    """What Ray Train keeps after each epoch: the highest by what was reported, and the newest."""
    reports, held, after = epoch_reports(rows(scores)), set[int](), []
    for epoch in reports:
        held = {*sorted({*held, epoch}, key=lambda e: float(reports[e][KEEP]))[-KEPT:], epoch}
        after.append(held)
    return after


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=30))
def test_what_is_kept_is_enough_when_the_newest_is_damaged(values: list[float]) -> None:
    """At every epoch: the newest, the one before, and of both the best one up to it; three at most."""
    scores = dict(enumerate(values, 1))

    def best(until: int) -> int:
        return max(range(1, until + 1), key=lambda epoch: (scores[epoch], epoch))

    for epoch, held in enumerate(kept(scores), 1):
        needed = {epoch, best(epoch)} | ({epoch - 1, best(epoch - 1)} if epoch > 1 else set())
        assert needed <= held and len(held) <= KEPT


def test_a_run_that_was_not_disturbed_is_left_alone(make: Callable[..., Storage]) -> None:
    run = make({2, 4})
    before = {f: f.stat().st_mtime_ns for f in Path(run.root).rglob("*")}
    recover(run)
    assert {f: f.stat().st_mtime_ns for f in Path(run.root).rglob("*")} == before
    assert record(run) == ([name(4), name(2)], name(4)) and not events(run)


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    recover(Storage(str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "file",
    ["state.json", "optimizer.safetensors", "adapter/adapter_model.safetensors", "answers.safetensors"],
)
def test_a_newest_checkpoint_that_was_cut_off(make: Callable[..., Storage], file: str) -> None:
    run = make({2, 4})
    damage(run, 4, file)
    recover(run)
    assert record(run) == ([name(2)], name(2))
    assert set(run.child("checkpoints").names()) == {RECORD, name(2)}
    (event,) = events(run)
    assert file in event and name(4) in event
    assert f"continues after epoch 2, from checkpoints/{name(2)}" in event


RISING = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
"""The newest epoch is the best one, as it mostly is while a run learns."""


@pytest.mark.parametrize(
    "scores", [SCORES, RISING, {1: 0.5, 2: 0.1, 3: 0.2, 4: 0.6}, {1: 0.5, 2: 0.1, 3: 0.2, 4: 0.3}]
)
@pytest.mark.parametrize("newest", [2, 3, 4])
def test_damage_to_the_newest_repeats_one_epoch(
    make: Callable[..., Storage], scores: dict[int, float], newest: int
) -> None:
    scores = {epoch: score for epoch, score in scores.items() if epoch <= newest}
    held = kept(scores)[-1]
    run = make(held, scores)
    assert set(run.child("checkpoints").names()) == {RECORD, *map(name, held)} and not events(run)
    damage(run, newest, "optimizer.safetensors")
    assert recover(run)
    assert record(run)[1] == name(newest - 1)
    assert f"continues after epoch {newest - 1}, from checkpoints/{name(newest - 1)}" in events(run)[0]
    assert not recover(run)


def test_damage_while_a_run_is_under_way(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that were started again found it; all is begun once more, from the checkpoint before."""
    run, tries = make({2, 3, 4}, RISING), []

    def fit(*_: object) -> object:
        tries.append(record(run)[1])
        if len(tries) == 1:
            damage(run, 4, "state.json")
            raise ResumeError("checkpoint cannot be read")
        return SimpleNamespace()

    monkeypatch.setattr(trainer, "_fit_once", fit)
    trainer._fit(RunConfig(), run, ())
    assert tries == [name(4), name(3)] and "continues after epoch 3" in events(run)[0]


def test_a_checkpoint_of_another_run_is_not_tried_again(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tries = make({2, 4}), []

    def fit(*_: object) -> object:
        tries.append(1)
        raise ResumeError("it does not fit this run")

    monkeypatch.setattr(trainer, "_fit_once", fit)
    with pytest.raises(ResumeError, match="does not fit"):
        trainer._fit(RunConfig(), run, ())
    (row,) = run.read_lines(EVENTS)
    assert len(tries) == 1 and row["event"] == "it does not fit this run" and row["ended_the_run"]


def test_a_record_of_an_earlier_version_is_written_anew(make: Callable[..., Storage]) -> None:
    """Ray would take checkpoints without the number by which it keeps them for the worst."""
    run = make({2, 4})
    place = run.child("checkpoints")
    told = place.read_json(RECORD)
    for result in told["checkpoint_results"]:
        del result["metrics"][KEEP]
    place.write_json(RECORD, told)
    recover(run)
    assert [r["metrics"][KEEP] for r in place.read_json(RECORD)["checkpoint_results"]] == [1.75, 2.0]
    assert not events(run)


def test_one_changed_bit_is_noticed(make: Callable[..., Storage]) -> None:
    run = make({2, 4})
    path = Path(run.root) / "checkpoints" / name(4) / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    recover(run)
    assert record(run)[1] == name(2) and "checksum" in events(run)[0]


def test_without_its_best_epoch_a_run_begins_again(make: Callable[..., Storage]) -> None:
    run = make({2, 4})
    damage(run, 2, "optimizer.safetensors")
    recover(run)
    assert not run.exists("checkpoints") and not run.exists("metrics.jsonl")
    assert "the run begins again" in events(run)[0]


@pytest.mark.parametrize("content", ["", '{"checkpoint_results": [', "{}", None])
def test_a_record_that_was_not_written_to_its_end(make: Callable[..., Storage], content: str | None) -> None:
    """As a full disk leaves it: the checkpoints themselves are enough to continue."""
    run = make({2, 4})
    path = Path(run.root) / "checkpoints" / RECORD
    path.unlink() if content is None else path.write_text(content)
    recover(run)
    assert record(run) == ([name(4), name(2)], name(4))


def test_a_checkpoint_that_ray_had_not_yet_noted_counts(make: Callable[..., Storage], tmp_path: Path) -> None:
    run = make({2, 4})
    kept = (tmp_path / "run" / "checkpoints" / RECORD).read_text()
    path = tmp_path / "run" / "checkpoints" / RECORD
    path.write_text(kept.replace(name(4), name(2)))
    recover(run)
    assert record(run) == ([name(4), name(2)], name(4)) and not events(run)


def test_of_equal_epochs_the_newest_is_the_best_as_ray_keeps_it(make: Callable[..., Storage]) -> None:
    run = make({2, 3, 4}, {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.1})
    assert record(run) == ([name(2), name(4), name(3)], name(4))


def test_an_epoch_that_metrics_do_not_know_does_not_count(make: Callable[..., Storage]) -> None:
    run = make({2, 4}, {1: 0.2, 2: 0.5})
    assert record(run) == ([name(2)], name(2))


def test_metrics_that_cannot_be_read(make: Callable[..., Storage]) -> None:
    run = make({2, 4})
    run.write_bytes("metrics.jsonl", b'{"kind": "epoch", "epo')
    recover(run)
    assert not run.exists("checkpoints") and not run.exists("metrics.jsonl")
    assert "metrics.jsonl cannot be read" in events(run)[0]
