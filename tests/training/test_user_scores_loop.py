"""Objectives that lean on a text-free model: the loop gets its scores from SASRec, trained once."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import pytest
import torch

from bearray.baselines import cache, load_or_train_sasrec
from bearray.config import BaselineTrainConfig, DecodingConfig, SASRecConfig
from bearray.recommend import DecoderInputs
from bearray.training.checks import check_objective
from bearray.training.loop import Loop
from bearray.training.user_scores import SASRecScores

PARTS: dict[str, Any] = {"rank": 0, "world": 1, "device": torch.device("cpu")}
NEEDING = {
    "rosepo": {"objective.name": "rosepo", "objective.smoothing": None},
    "flower": {"objective.name": "flower", "objective.theta": 0.9},
}


QUICK = SASRecConfig(train=BaselineTrainConfig(epochs=2))


@pytest.fixture(autouse=True)
def trained(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """SASRec in two epochs, in a cache of the module and not the user's own; what was fitted."""
    folder = tmp_path_factory.getbasetemp() / "sasrec-cache"
    monkeypatch.setenv("BEARRAY_CACHE", str(folder))
    quick = partial(load_or_train_sasrec, config=QUICK)
    monkeypatch.setattr("bearray.recommend.load_or_train_sasrec", quick)
    fitted: list[Any] = []
    real = cache.fit
    monkeypatch.setattr(cache, "fit", lambda *args, **options: fitted.append(args) or real(*args, **options))
    return fitted


@pytest.mark.parametrize("name", NEEDING)
def test_the_loop_asks_sasrec_where_nobody_gives_scores(name, make_run, micro_task, capsys) -> None:
    config = make_run(NEEDING[name])
    check_objective(config, micro_task)
    rows: list[dict[str, Any]] = []
    loop = Loop(config, micro_task, log=rows.append, **PARTS)
    said = [line for line in capsys.readouterr().err.splitlines() if "scores for users are SASRec's" in line]
    assert len(said) == 1 and "validation NDCG@10" in said[0]
    loop.run_epoch()
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_it_is_trained_once_and_shared_with_decoding(make_run, micro_task, trained) -> None:
    config = make_run(NEEDING["rosepo"])
    first = Loop(config, micro_task, log=dict, **PARTS)
    trained.clear()
    again = Loop(config, micro_task, log=dict, **PARTS)
    assert not trained  # the cache has it
    sasrec = again.decoder_inputs.sasrec()
    assert sasrec is again.decoder_inputs.sasrec() and sasrec.folder == first.decoder_inputs.sasrec().folder
    cases = micro_task.cases("valid")[:2]
    scores = again.decoder_inputs.text_free_scores(cases, DecodingConfig(d3_scores="sasrec"))
    torch.testing.assert_close(scores, sasrec.title_scores([c.history_titles for c in cases]))


def test_d3_may_ask_one_of_other_epochs(micro_task, trained) -> None:
    inputs = DecoderInputs(micro_task, "cpu")
    cases = micro_task.cases("valid")[:2]
    scores = inputs.text_free_scores(cases, DecodingConfig(d3_scores="sasrec", d3_sasrec_epochs=1))
    own, usual = inputs.sasrec(1), inputs.sasrec()
    assert json.loads((own.folder / cache.CARD).read_text())["config"]["train"]["epochs"] == 1
    torch.testing.assert_close(scores, own.title_scores([c.history_titles for c in cases]))
    assert own.folder != usual.folder and inputs.sasrec(1) is own and inputs.sasrec() is usual


def test_scores_are_those_of_the_windows_asked_for(micro_task) -> None:
    fitted = DecoderInputs(micro_task, "cpu").sasrec()
    scores = SASRecScores(fitted, micro_task.histories("train"))
    found = scores(torch.tensor([4, 0, 9]))
    windows = micro_task.windows("train").iloc[[4, 0, 9]]
    torch.testing.assert_close(found, fitted.scores_for(windows))
    assert found.shape == (3, len(micro_task.catalog))


def test_scores_that_are_given_are_taken(make_run, micro_task, monkeypatch) -> None:
    monkeypatch.setattr(DecoderInputs, "sasrec", lambda self: pytest.fail("SASRec was asked"))
    asked: list[int] = []

    def scores(rows: torch.Tensor) -> torch.Tensor:
        asked.extend(rows.tolist())
        return torch.zeros(len(rows), len(micro_task.catalog))

    rows: list[dict[str, Any]] = []
    Loop(make_run(NEEDING["rosepo"]), micro_task, log=rows.append, user_scores=scores, **PARTS).run_epoch()
    assert sorted(asked) == list(range(22))
    # no preference either way: the loss is least where nothing is preferred
    assert rows[0]["loss"] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-5)


def test_objectives_that_need_no_scores_train_no_sasrec(make_run, micro_task, monkeypatch) -> None:
    monkeypatch.setattr(DecoderInputs, "sasrec", lambda self: pytest.fail("SASRec was asked"))
    config = make_run({"objective.name": "flower", "objective.personalised": False})
    rows: list[dict[str, Any]] = []
    Loop(config, micro_task, log=rows.append, **PARTS).run_epoch()
    assert all(row["subtb"] > 0 and row["log_reward"] < 0 for row in rows)
