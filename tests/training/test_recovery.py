"""Which checkpoint a run continues from, whatever a crash has left of them; without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bearray.runs import Storage
from bearray.training.events import EVENTS
from bearray.training.recovery import RECORD, recover
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
            [{"kind": "epoch", "epoch": e, "seconds": 1.0, "valid_ndcg@10": s} for e, s in scores.items()],
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
    assert record(run) == ([name(4), name(3)], name(4))


def test_an_epoch_that_metrics_do_not_know_does_not_count(make: Callable[..., Storage]) -> None:
    run = make({2, 4}, {1: 0.2, 2: 0.5})
    assert record(run) == ([name(2)], name(2))


def test_metrics_that_cannot_be_read(make: Callable[..., Storage]) -> None:
    run = make({2, 4})
    run.write_bytes("metrics.jsonl", b'{"kind": "epoch", "epo')
    recover(run)
    assert not run.exists("checkpoints") and not run.exists("metrics.jsonl")
    assert "metrics.jsonl cannot be read" in events(run)[0]
