"""What must be true of a sweep's storage after all faults, and of the points that its processes passed."""

from __future__ import annotations

from collections.abc import Callable, Collection

import optuna

from bearray.config import RunConfig, from_dict
from bearray.runs import Storage
from bearray.tuning.config import SearchConfig
from bearray.tuning.space import LAMBDA_AND_XI
from tests.faults.helpers import (
    Undisturbed,
    assert_predicted_as_undisturbed,
    assert_trained_as_undisturbed,
    compare,
)
from tests.faults.sweep_process import STEPS, TRIALS, Gates

Find = Callable[[RunConfig], Undisturbed]


def assert_as_undisturbed(root: str, undisturbed: Find) -> None:
    """Every run of a finished micro sweep, its test and its predictions are what they would have been."""
    runs = Storage(root).child("runs")
    results = {name: runs.child(name).read_json("result.json") for name in runs.names()}
    configs = {n: from_dict(RunConfig, runs.child(n).read_json("config.json")["run"]) for n in results}
    assert len(results) == TRIALS and {r["status"] for r in results.values()} == {"finished"}
    scores = {}
    for name, result in results.items():
        expected = undisturbed(configs[name])
        assert_trained_as_undisturbed(runs.child(name), expected)
        assert result["best_epoch"] == expected.best_epoch
        compare({f"valid_{k}": v for k, v in result["valid"].items()}, _without_counts(expected.best_valid))
        scores[name] = expected.best_valid["valid_ndcg@10"]
        if "test" in result:
            own = configs[name].decoding.normalize
            compare(result["test"], {own: expected.test[own]})
            assert_predicted_as_undisturbed(runs.child(name, "predictions"), expected, own)
    best = min(name for name in scores if scores[name] == max(scores.values()))
    assert [name for name, result in results.items() if "test" in result] == [best]
    _assert_suggestions(configs, scores)


def _without_counts(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if "@" in name}


def _assert_suggestions(configs: dict[str, RunConfig], scores: dict[str, float]) -> None:
    """The trials are those that Optuna alone suggests one after the other."""
    search = SearchConfig(trials=TRIALS)
    sampler = optuna.samplers.TPESampler(seed=search.seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    ranges = {axis: getattr(search, axis) for axis in LAMBDA_AND_XI}
    space = {a: optuna.distributions.FloatDistribution(*r, log=search.log_scale) for a, r in ranges.items()}
    drawn = {
        tuple(getattr(c.objective, f.split(".")[1]) for f in LAMBDA_AND_XI.values()): n
        for n, c in configs.items()
    }
    for _ in range(TRIALS):
        trial = study.ask(fixed_distributions=space)
        place = tuple(trial.params[axis] for axis in LAMBDA_AND_XI)
        assert place in drawn, f"{place} was suggested, but the sweep has {sorted(drawn)}"
        study.tell(trial, scores[drawn[place]])


def assert_steps(gates: Gates, again: Collection[tuple[int, int]] = ()) -> None:
    """All steps of all runs were made once, but for those (run, step) that a fault made necessary again."""
    count = gates.count()
    made = {(run, step): count[f"step {step} of run {run}"] for run in range(TRIALS) for step in range(STEPS)}
    assert made == {place: 1 + (place in again) for place in made}
