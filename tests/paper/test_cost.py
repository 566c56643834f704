"""What is left to do, and its price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bearray.paper.config import PaperConfig
from bearray.paper.cost import costs, lines
from bearray.paper.data import prepare_data
from bearray.paper.parts import needs
from bearray.paper.steps import Step, steps
from bearray.paper.sweeps import part_storage
from tests.paper.planted import PART, figure_8, only, plant


def test_the_plan_counts_what_is_there(smoke: PaperConfig) -> None:
    config = replace(smoke, table=(2,))
    prepare_data(config)
    (step, *rest) = steps(config, needs(config))
    assert step.runs() == 9 and step.done() == 0 and {s.title for s in rest} >= {"train and test sasrec"}
    for method, seed, chosen in (("SFT", 42, True), ("MSL", 42, False), ("IGD", 5, True)):
        plant(config, step, method, seed, chosen=chosen)
    assert step.done() == 1  # one is not chosen, one of another seed
    (cost,) = costs(config, [step])
    assert cost.left == 8


def test_another_seed_has_no_search_of_its_own(smoke: PaperConfig) -> None:
    """Trials are with the first seed: what a second one takes does not depend on their number."""

    def first_step(trials: int, seeds: tuple[int, ...]) -> Step:
        config = replace(smoke, table=(2,), methods=("sft", "bear"), trials=trials, seeds=seeds)
        return next(steps(config, needs(config)))

    def hours(trials: int, seeds: tuple[int, ...]) -> float:
        (cost,) = costs(smoke, [first_step(trials, seeds)])
        return 0.0 if cost.hours is None else cost.hours.seconds

    prepare_data(smoke)
    one, searched = hours(1, (42,)), hours(9, (42,))
    assert searched > one
    for method in ("SFT", "BEAR"):
        plant(smoke, first_step(1, (42,)), method, 42)
    assert hours(1, (42,)) == hours(9, (42,)) == 0
    assert 0 < hours(9, (42, 43)) == hours(1, (42, 43)) <= one


def test_figure_7_alone_has_the_price_of_sft(smoke: PaperConfig) -> None:
    """The preference methods begin from SFT's model, so a sweep trains and tests it first."""
    config = replace(smoke, figure=(7,))
    prepare_data(config)
    step = next(steps(config, needs(config)))
    assert step.methods == {"sdpo", "sdpo_bear"}

    def price() -> float:
        (cost,) = costs(config, [step])
        assert cost.hours is not None
        return cost.hours.seconds

    alone = price()
    plant(config, step, "SFT", 42)
    assert price() < 0.8 * alone


def test_what_is_decoded_has_a_price_and_what_has_none_is_said(smoke: PaperConfig) -> None:
    config = replace(smoke, table=(2,), baselines=("sasrec", "dllm2rec"), d3_scores="sasrec")
    prepare_data(config)

    def of(words: str, **changes: Any) -> Any:
        asked = replace(config, **changes)
        return costs(asked, [only(asked, words)])[0]

    few, many, seeds = of("D3"), of("D3", d3_alpha=(0.5, 0.7, 0.9)), of("D3", seeds=(42, 43))
    assert 0 < few.hours.seconds < many.hours.seconds < 3 * few.hours.seconds
    assert seeds.hours.seconds == pytest.approx(2 * few.hours.seconds)
    teacher = of("dllm2rec")
    assert teacher.hours.seconds > 0
    assert teacher.without == "not estimated: its own training and vectors of titles"
    assert (of("sasrec").hours, of("sasrec").without) == (None, "not estimated: its own training")
    part_storage(config, PART).write_json("decoded/d3-42/result.json", {"status": "finished"})
    assert (of("D3").hours, of("D3").without) == (None, "")
    text = "\n".join(lines(costs(config, list(steps(config, needs(config)))), config))
    assert "train and test dllm2rec: 1 of 1 to do, " in text and "what is estimated, together: " in text
    assert "short beside" not in text


def test_figure_8_is_priced_for_all_that_it_runs(smoke: PaperConfig) -> None:
    """The search draws its values from a range: none of the grid's is left out because it was drawn."""
    config = replace(smoke, figure=(8,), lam=(0.25, 2.0), xi=(1.0, 2.0))
    prepare_data(config)
    assert config.run.objective.lam == 0.25 and config.run.objective.xi == 1.0
    four, two = (
        costs(each, [figure_8(each)])[0].hours for each in (config, replace(config, lam=(3.0,), xi=(3.0,)))
    )
    assert four is not None and two is not None and four.seconds == pytest.approx(2 * two.seconds)
