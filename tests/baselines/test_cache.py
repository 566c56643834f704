"""The cache: trained once, whoever asks, and anew where what is kept does not fit or is damaged."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.baselines import Fitted, Inputs, Job, SASRec, load_or_train_sasrec, number_titles
from bearray.baselines import train as loop
from bearray.config import SASRecConfig, override
from bearray.data import Dataset
from bearray.errors import DataError, StorageError


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were trained, whatever for."""
    epochs: list[int] = []
    original = loop._train_epoch

    def counted(*arguments: Any) -> float:
        epochs.append(arguments[4])
        return original(*arguments)

    monkeypatch.setattr(loop, "_train_epoch", counted)
    return epochs


def ask(dataset: Dataset, config: SASRecConfig, cache: Path) -> Fitted:
    return load_or_train_sasrec(
        dataset, number_titles(dataset.items), config, cache_dir=cache, progress=False
    )


def test_a_hit_does_not_train_again(
    circle: Dataset, small: SASRecConfig, tmp_path: Path, trained: list[int]
) -> None:
    first = ask(circle, small, tmp_path)
    assert trained == [1, 2, 3, 4]
    second = ask(circle, small, tmp_path)
    assert len(trained) == 4
    assert torch.equal(first.scores_for(circle.test), second.scores_for(circle.test))
    assert second.history == first.history and second.best_epoch == first.best_epoch
    assert sorted(p.name for p in first.folder.iterdir()) == ["card.json", "model.safetensors"]


def test_other_settings_data_or_titles_are_other_models(
    circle: Dataset, small: SASRecConfig, tmp_path: Path, trained: list[int]
) -> None:
    folders = [
        ask(circle, small, tmp_path).folder,
        ask(circle, override(small, {"train.seed": 1}), tmp_path).folder,
        ask(circle, override(small, {"dropout": 0.1}), tmp_path).folder,
        ask(replace(circle, content_hash="d" * 64), small, tmp_path).folder,
    ]
    merged = {**number_titles(circle.items), 40: 0}
    folders.append(load_or_train_sasrec(circle, merged, small, cache_dir=tmp_path, progress=False).folder)
    assert len(set(folders)) == 5 and len(trained) == 20


def test_several_who_ask_at_once_train_once(
    circle: Dataset, small: SASRecConfig, tmp_path: Path, trained: list[int]
) -> None:
    found: list[Fitted] = []
    threads = [threading.Thread(target=lambda: found.append(ask(circle, small, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trained) == 4 and len(found) == 3
    scores = [f.scores_for(circle.test) for f in found]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


def test_an_interrupted_training_is_continued(
    circle: Dataset,
    small: SASRecConfig,
    tmp_path: Path,
    trained: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = ask(circle, small, tmp_path / "whole")
    trained.clear()
    validate = loop.validate

    def interrupt(*arguments: Any) -> dict[str, float]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(loop, "validate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask(circle, small, tmp_path / "other")
    monkeypatch.setattr(loop, "validate", validate)
    resumed = ask(circle, small, tmp_path / "other")
    assert trained == [1, 2, 3, 3, 4]
    assert torch.equal(resumed.scores_for(circle.test), whole.scores_for(circle.test))


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_a_damaged_model_is_trained_anew(
    circle: Dataset,
    small: SASRecConfig,
    tmp_path: Path,
    trained: list[int],
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = ask(circle, small, tmp_path)
    file = first.folder / name
    file.write_bytes(file.read_bytes()[:-40])
    again = ask(circle, small, tmp_path)
    assert len(trained) == 8 and "trained anew" in caplog.text
    assert torch.equal(first.scores_for(circle.test), again.scores_for(circle.test))


def test_a_damaged_half_training_is_begun_anew(
    circle: Dataset, small: SASRecConfig, tmp_path: Path, trained: list[int]
) -> None:
    job = Job(SASRec, small, Inputs(circle, number_titles(circle.items), small.max_history))
    state = tmp_path / f"sasrec-{job.key[:16]}" / "training"
    state.mkdir(parents=True)
    (state / "training.json").write_text("{broken")
    fitted = ask(circle, small, tmp_path)
    assert trained == [1, 2, 3, 4] and fitted.folder == state.parent and not state.exists()


def test_scores_do_not_depend_on_the_target_and_follow_the_windows(
    circle: Dataset, small: SASRecConfig, tmp_path: Path
) -> None:
    fitted = ask(circle, small, tmp_path)
    scores = fitted.scores_for(circle.test)
    assert scores.shape == (60, 40) and scores.dtype == torch.float32
    windows = [list(items) for items in circle.test["item_ids"]]
    other = [[*items[:-1], 1 + items[-1] % 40] for items in windows]
    assert torch.equal(fitted.scores_for(other), scores)
    assert torch.equal(fitted.scores([w[:-1] for w in windows]), scores)
    in_titles = [[fitted.title_of_item[i] for i in w[:-1]] for w in windows]
    assert torch.equal(fitted.title_scores(in_titles), scores)
    one = fitted.scores_for(windows[7:8])
    torch.testing.assert_close(one[0], scores[7])
    assert (scores[0] - scores[1]).abs().max() > 1e-3
    assert fitted.scores([]).shape == (0, 40)


def test_what_cannot_be_scored_is_named(circle: Dataset, small: SASRecConfig, tmp_path: Path) -> None:
    fitted = ask(circle, small, tmp_path)
    with pytest.raises(DataError, match="history 1 is empty"):
        fitted.scores_for([[1, 2], [3]])
    with pytest.raises(DataError, match="item 99"):
        fitted.scores_for([[1, 2], [99, 3]])
    with pytest.raises(DataError, match="item 40"):
        fitted.title_scores([[40]])


def test_a_cache_that_cannot_be_written_is_an_error(
    circle: Dataset, small: SASRecConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        ask(circle, small, tmp_path / "file" / "cache")


def test_the_card_says_what_was_trained_on_what(
    circle: Dataset, small: SASRecConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARRAY_CACHE", str(tmp_path))
    fitted = load_or_train_sasrec(circle, number_titles(circle.items), small, progress=False)
    assert fitted.folder.parent == tmp_path / "baselines"
    card = json.loads((fitted.folder / "card.json").read_text())
    assert (card["baseline"], card["data"], card["titles"]) == ("sasrec", "circle", 40)
    assert card["training_windows"] == 300 and card["config"]["train"]["epochs"] == 4
    assert card["valid"]["ndcg@10"] == max(row["valid_ndcg@10"] for row in card["history"])


def test_titles_of_the_history_can_be_ruled_out(circle: Dataset, small: SASRecConfig, tmp_path: Path) -> None:
    fitted = ask(circle, small, tmp_path)
    scores = fitted.scores([[1, 2], [7]], exclude_history=True)
    assert (scores == -torch.inf).nonzero().tolist() == [[0, 0], [0, 1], [1, 6]]
