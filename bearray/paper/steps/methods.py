"""A part's sweep: its methods are searched, trained and tested."""

from __future__ import annotations

from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part, labels
from bearray.paper.steps.step import Step, tested_runs
from bearray.paper.sweeps import part_sweep, with_base
from bearray.runs import SWEEP, Storage
from bearray.tuning.sweep import check_sweep, run_sweep


def methods_step(config: PaperConfig, part: Part, methods: frozenset[str]) -> Step:
    sweep = part_sweep(config, part)

    def do() -> None:
        run_sweep(with_base(config, part, sweep), only=methods)

    def done() -> int:
        return sum(
            method in methods and seed in sweep.all_seeds for method, seed in tested_runs(config, part)
        )

    def check() -> None:
        if Storage(sweep.storage).exists(SWEEP):
            check_sweep(with_base(config, part, sweep))

    return Step(
        title=f"train and test {labels(methods)}",
        part=part,
        runs=lambda: len(methods) * len(sweep.all_seeds),
        done=done,
        do=do,
        check=check,
        trains=sweep,
        methods=methods,
    )
