"""BEAR at other values of lambda and xi than the chosen ones."""

from __future__ import annotations

from bearray.errors import ResumeError
from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part
from bearray.paper.steps.step import Step, tested_runs, trained_run
from bearray.paper.stored import SENSITIVITY
from bearray.paper.sweeps import part_storage, sensitivity_points, sensitivity_sweep, with_base
from bearray.runs import SWEEP, Storage
from bearray.trained import CONFIG
from bearray.tuning.sweep import check_sweep, run_sweep
from bearray.tuning.trial import finished


def sensitivity_step(config: PaperConfig, part: Part) -> Step:
    storage = part_storage(config, part).child(SENSITIVITY)
    seed = config.seeds[0]

    def chosen() -> dict[str, float] | None:
        """BEAR's values; None before they are known."""
        folder = tested_runs(config, part).get(("bear", seed))
        return None if folder is None else _varied(folder)[0]

    def points() -> list[dict[str, float]]:
        return list(sensitivity_points(config, chosen()).values())

    def done() -> int:
        runs = storage.child("runs")
        there = [_varied(folder) for folder in map(runs.child, runs.names()) if finished(folder)]
        return sum((point, seed) in there for point in points()) if chosen() else 0

    def do() -> None:
        trained_run(config, part, "bear", seed)  # or the reason why there is nothing to vary
        run_sweep(with_base(config, part, sensitivity_sweep(config, part, chosen())))

    def check() -> None:
        if not storage.exists(SWEEP) or done() == len(points()):
            return
        sweep = sensitivity_sweep(config, part, chosen())
        before = storage.read_json(SWEEP)["sweep"]["method_settings"]
        gone = [text for text in before if text not in sweep.method_settings]
        if gone:
            raise ResumeError(
                f"{storage.root} was begun with other --lam or --xi: {', '.join(gone)}; repeat them, with "
                "more at their ends where more are wanted, or choose another --storage"
            )
        check_sweep(with_base(config, part, sweep))

    expected = sensitivity_sweep(config, part, chosen())
    return Step(
        title="train BEAR with other values of lambda and xi",
        part=part,
        runs=lambda: len(points()),
        done=done,
        do=do,
        check=check,
        trains=expected,
        methods=frozenset(expected.objectives),
    )


def _varied(folder: Storage) -> tuple[dict[str, float], int]:
    """Lambda and xi of a run, and its seed."""
    run = folder.read_json(CONFIG)["run"]
    return {axis: run["objective"][axis] for axis in ("lam", "xi")}, int(run["train"]["seed"])
