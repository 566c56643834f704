"""What a training step of each method costs, timed in rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.results import FILE, FOLDER, forget
from bearray.paper.config import PaperConfig
from bearray.paper.data import data_folder
from bearray.paper.parts import Part, labels
from bearray.paper.steps.step import Step
from bearray.paper.sweeps import part_base, part_run, part_storage, part_sweep
from bearray.tuning.settings import method_settings
from bearray.tuning.timing import run_benchmark
from bearray.tuning.watch import say


def timing_step(config: PaperConfig, part: Part, methods: frozenset[str]) -> Step:
    where = part_storage(config, part).child(FOLDER)

    def measured() -> tuple[list[str], int]:
        """What is timed there, as `_timed` has it, and in how many rounds; none while they go on."""
        if not where.exists(FILE):
            return [], 0
        found = where.read_json(FILE)
        rounds = 0 if found["finished"] is None else len(found["training"]["rounds"])
        return found["settings"]["objectives"], rounds

    def done() -> int:
        objectives, rounds = measured()
        timed = {text.partition(":")[0] for text in objectives}
        return len(methods & timed) if rounds >= config.timing_rounds else 0

    def check() -> None:
        rounds = measured()[1]
        if rounds > config.timing_rounds:
            say(
                f"{where.root} has {rounds} rounds; they all count, though --timing-rounds asks for "
                f"{config.timing_rounds}"
            )

    def do() -> None:
        objectives = _timed(config, part, sorted(methods, key=lambda m: (m != "sft", m)))
        before, _ = measured()
        if before and set(objectives) <= set(before):
            objectives = tuple(before)
        elif before:
            say(f"{where.root} has no times of {labels(set(objectives) - set(before))}: all are timed anew")
            forget(where)
        run_benchmark(
            EfficiencyConfig(
                data_dir=str(data_folder(config, part)),
                storage=part_storage(config, part).root,
                base_model=part_base(config, part),
                objectives=objectives,
                decoders=("none",),
                rounds=config.timing_rounds,
                steps=1 if config.smoke else 2,
                warmup_steps=1 if config.smoke else 2,
                run=part_run(config, part),
            )
        )

    return Step(
        title=f"time training steps of {labels(methods)}",
        part=part,
        runs=lambda: len(methods),
        done=done,
        do=do,
        check=check,
        unpriced="the timing",
    )


def _timed(config: PaperConfig, part: Part, methods: Sequence[str]) -> tuple[str, ...]:
    """Methods as `bearray bench objectives` takes them, with the settings of their runs' objectives."""
    sweep = part_sweep(config, part)
    own = method_settings(sweep.method_settings, sweep.objectives, sweep.run)
    prefix, found = "objective.", []
    for method in methods:
        changes = own.get(method, {}).items()
        fields = [f"{k.removeprefix(prefix)}={json.dumps(v)}" for k, v in changes if k.startswith(prefix)]
        found.append(f"{method}:{','.join(fields)}" if fields else method)
    return tuple(found)
