"""SPRec: what each epoch of a run does. Its losses are SFT's and DPO's, which have their own tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import DPO, SFT, Draw, NegativeSpec, SPRec, make_objective


def labels(epochs: int, **settings: int) -> list[str]:
    return [r.label for r in SPRec(**settings).schedule(epochs)]


def test_the_published_run() -> None:
    objective = make_objective(ObjectiveConfig(name="sprec", sft_epochs=4, round_windows=2048))
    rounds = objective.schedule(14)
    assert [r.label for r in rounds] == ["sft"] * 4 + ["sft", "dpo"] * 5
    assert all(isinstance(r.loss, SFT if r.label == "sft" else DPO) for r in rounds)
    assert all(r.draw is None for r in rounds[:4])
    assert [r.draw for r in rounds[4:]] == [Draw(i // 2, 2048) for i in range(10)]
    assert [r.new_reference for r in rounds] == [False] * 4 + [False, True] * 5
    assert rounds[5].loss is objective and objective.beta == 0.1
    assert objective.negatives == NegativeSpec("self", 1)
    assert SPRec.needs == {"reference", "negatives"}
    assert labels(14) == [r.label for r in rounds]  # without sft_epochs too


def test_short_runs_still_compare() -> None:
    assert labels(2) == ["sft", "dpo"]
    assert labels(3) == ["sft", "sft", "dpo"]
    assert labels(4) == ["sft", "sft", "sft", "dpo"]
    assert labels(4, sft_epochs=0) == ["sft", "dpo"] * 2


@given(epochs=st.integers(2, 60))
def test_the_default_fills_every_run_with_whole_iterations(epochs: int) -> None:
    found = labels(epochs)
    iterations = found.count("dpo")
    assert len(found) == epochs and iterations >= 1
    assert found == ["sft"] * (epochs - 2 * iterations) + ["sft", "dpo"] * iterations
    assert abs(2 * iterations - epochs * 10 / 14) <= 1 or epochs == 2


@pytest.mark.parametrize(("epochs", "settings"), [(1, {}), (4, {"sft_epochs": 4}), (5, {"sft_epochs": 2})])
def test_a_run_without_whole_iterations_is_refused(epochs: int, settings: dict[str, int]) -> None:
    with pytest.raises(
        ConfigError, match=rf"train\.epochs is {epochs}, .*objective\.sft_epochs.* even number"
    ):
        SPRec(**settings).schedule(epochs)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.reference is 'base'.*must be 'start'"):
        make_objective(ObjectiveConfig(name="sprec", reference="base"))
    with pytest.raises(ConfigError, match=r"objective\.round_windows is 0"):
        ObjectiveConfig(round_windows=0)
    with pytest.raises(ConfigError, match=r"objective\.sft_epochs is -1"):
        ObjectiveConfig(sft_epochs=-1)
    with pytest.raises(ConfigError, match="sft_epochs is -1"):
        SPRec(sft_epochs=-1)
    with pytest.raises(ConfigError, match="round_windows is 0"):
        SPRec(round_windows=0)


def test_other_objectives_do_the_same_in_every_epoch() -> None:
    objective = make_objective(ObjectiveConfig(name="dpo"))
    rounds = objective.schedule(3)
    assert len(rounds) == 3 and all(r.loss is objective for r in rounds)
    assert all(r.draw is None and not r.new_reference and r.label == "" for r in rounds)


@given(total=st.integers(1, 50), windows=st.integers(1, 60), seed=st.integers(0, 5), number=st.integers(0, 5))
def test_a_draw_is_of_different_windows_and_by_its_number(
    total: int, windows: int, seed: int, number: int
) -> None:
    rows = Draw(number, windows).rows(total, seed=seed)
    assert len(rows) == Draw(number, windows).size(total) == min(windows, total)
    assert (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < total
    assert np.array_equal(rows, Draw(number, windows).rows(total, seed=seed))


def test_draws_differ_by_number_and_seed() -> None:
    drawn = [tuple(Draw(n, 10).rows(100, seed=s)) for n in range(4) for s in range(4)]
    assert len(set(drawn)) == 16
    assert tuple(Draw(3, None).rows(5, seed=0)) == (0, 1, 2, 3, 4)
