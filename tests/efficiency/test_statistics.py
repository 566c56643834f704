"""Medians, intervals and ratios on planted times."""

from __future__ import annotations

import numpy as np
import pytest

from bearray.efficiency.statistics import decoding_rows, median_interval, training_rows
from tests.efficiency.planted import RATIOS, SFT, decoding, training, turn


def test_interval_of_few_values_is_their_range_and_says_how_little_that_is() -> None:
    one = median_interval([3.0])
    assert (one.value, one.low, one.high, one.coverage) == (3.0, 3.0, 3.0, 0.0)
    three = median_interval([3.0, 1.0, 2.0])
    assert (three.value, three.low, three.high) == (2.0, 1.0, 3.0)
    assert three.coverage == pytest.approx(0.75)
    six = median_interval(range(6))
    assert (six.low, six.high) == (0, 5) and six.coverage == pytest.approx(0.96875)


@pytest.mark.parametrize(
    ("n", "place", "coverage"), [(9, 2, 0.9609), (10, 2, 0.9785), (20, 6, 0.9586), (100, 40, 0.9648)]
)
def test_interval_is_that_of_the_textbook_table(n: int, place: int, coverage: float) -> None:
    """Order statistics for the median at 95%, as in Conover, Practical Nonparametric Statistics."""
    found = median_interval(list(range(1, n + 1)))
    assert (found.low, found.high) == (place, n + 1 - place)
    assert found.coverage == pytest.approx(coverage, abs=5e-5)


def test_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [i.low <= 0 <= i.high for i in (median_interval(rng.standard_cauchy(9)) for _ in range(4000))]
    assert np.mean(hits) == pytest.approx(0.9609, abs=0.012)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        median_interval(values)


def test_ratios_are_paired_by_round_so_that_drift_cancels() -> None:
    rows = {row.label: row for row in training_rows(training())}
    for label, ratio in (("sft", 1.0), ("bear", 1.5), ("sdpo", 2.0)):
        found = rows[label].ratio
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((ratio,) * 3)  # though seconds spread
        assert rows[label].cpu_ratio is not None and rows[label].cpu_ratio.value == pytest.approx(ratio)
    bear = rows["bear"].seconds
    assert bear.value == pytest.approx(1.5 * np.median(SFT))
    assert (bear.low, bear.high) == pytest.approx((1.5 * 0.9, 1.5 * 1.3))
    assert rows["bear"].speed.value == pytest.approx(np.median([500 / (1.5 * s) for s in SFT]))
    epoch = rows["bear"].epoch_seconds
    assert epoch is not None and epoch.value == pytest.approx(10 * bear.value)
    assert (rows["sdpo"].forward, rows["sdpo"].backward) == (2, 1)
    assert (rows["sft"].fed, rows["sft"].padding) == (500, 50)


def test_a_pairing_that_is_not_constant_shows_in_the_interval() -> None:
    part = training()
    for n, record in enumerate(part["rounds"]):
        record["turns"]["bear"] = turn([SFT[n] * (1 + n)] * 2)
    bear = next(row for row in training_rows(part) if row.label == "bear")
    assert bear.ratio is not None
    assert (bear.ratio.value, bear.ratio.low, bear.ratio.high) == pytest.approx((3.5, 1.0, 6.0))


def test_steps_of_several_kinds_count_as_often_as_they_are_scheduled() -> None:
    part = training()
    part["passes"]["bear"] |= {
        "weights": [0.35, 0.35, 0.15, 0.15],
        "forward": [1, 1, 11, 11],
        "backward": [1] * 4,
        "tokens": [100] * 4,
        "padding": [0] * 4,
    }
    for record in part["rounds"]:
        record["turns"]["bear"] = turn([1.0, 1.0, 3.0, 3.0])
        record["turns"]["sft"] = turn([1.0, 1.0])
    bear = next(row for row in training_rows(part) if row.label == "bear")
    assert bear.seconds.value == pytest.approx(0.7 * 1 + 0.3 * 3)
    assert bear.ratio is not None and bear.ratio.value == pytest.approx(1.6)
    assert bear.forward == pytest.approx(0.7 + 3.3)


def test_without_the_baseline_there_is_no_ratio() -> None:
    part = training()
    del part["contenders"]["sft"]
    assert [row.ratio for row in training_rows(part)] == [None, None]


def test_ratios_between_any_two_are_paired_by_round() -> None:
    """Medians of a drifting machine would give another quotient than the rounds do."""
    part = training()
    for n, record in enumerate(part["rounds"]):
        record["turns"]["bear"] = turn([SFT[n] * (1 + n)] * 2)
        record["turns"]["sdpo"] = turn([SFT[n] * (1 + n) * 2] * 2)
    rows = {row.label: row for row in training_rows(part)}
    found = rows["sdpo"].ratios["bear"]
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert rows["sdpo"].bear_ratio == found
    assert rows["sft"].ratios["bear"].value == pytest.approx(np.median([1 / (1 + n) for n in range(6)]))
    assert set(rows["bear"].ratios) == {"sft", "sdpo"}
    assert rows["bear"].bear_ratio is not None and rows["bear"].bear_ratio.value == 1.0
    assert [row.bear_ratio for row in decoding_rows(decoding())] == [None, None]


def test_an_objective_is_compared_with_sft_of_its_own_lora_dropout() -> None:
    part = training()
    for label, of, factor in (("sft:lora_dropout=0", "sft", 0.5), ("sdpo:lora_dropout=0.0", "sdpo", 0.4)):
        part["contenders"][label] = {**part["contenders"][of], "lora_dropout": 0.0}
        part["steps_per_epoch"][label] = 10.0
        part["passes"][label] = part["passes"][of]
        for n, record in enumerate(part["rounds"]):
            record["turns"][label] = turn([SFT[n] * factor] * 2)
    for label in RATIOS:
        part["contenders"][label]["lora_dropout"] = 0.05
    rows = {row.label: row for row in training_rows(part)}
    free = rows["sdpo:lora_dropout=0.0"]
    assert free.ratio is not None and free.ratio.value == pytest.approx(0.8)
    assert free.bear_ratio is None  # bear:lora_dropout=0 was not timed
    assert free.ratios["sft"].value == pytest.approx(0.4)
    assert rows["sdpo"].ratio is not None and rows["sdpo"].ratio.value == pytest.approx(2.0)
    assert rows["sft:lora_dropout=0"].ratio is not None
    assert rows["sft:lora_dropout=0"].ratio.value == pytest.approx(1.0)


def test_decoding_is_told_per_user() -> None:
    beam, generate = decoding_rows(decoding())
    assert beam.seconds.value == pytest.approx(0.1 * np.median(SFT) / 20)
    assert generate.ratio is not None and generate.ratio.value == pytest.approx(3.0)
    assert beam.speed.value == pytest.approx(np.median([200 / s for s in SFT]))
    assert (beam.forward, beam.fed, beam.epoch_seconds) == (7, 100, None)


def test_energy_is_per_step_and_absent_where_one_round_lacks_it() -> None:
    part = training()
    for record in part["rounds"]:
        record["turns"]["sft"]["joules"] = 8.0
    rows = {row.label: row for row in training_rows(part)}
    assert rows["sft"].joules is not None and rows["sft"].joules.value == pytest.approx(4.0)
    assert rows["bear"].joules is None
    part["rounds"][0]["turns"]["sft"]["joules"] = None
    assert training_rows(part)[0].joules is None


def test_before_the_first_round_there_are_no_rows() -> None:
    assert training_rows(training(rounds=0)) == []
