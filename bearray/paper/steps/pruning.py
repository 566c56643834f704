"""How often beam search prunes the targets of trained runs."""

from __future__ import annotations

from bearray.config import differences
from bearray.errors import ResumeError
from bearray.evaluation.pruning import SUMMARY, Analysis, analyse_run
from bearray.evaluation.shards import MANIFEST
from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part, labels
from bearray.paper.steps.step import Step, telling, tested_runs, trained_run
from bearray.tuning.cluster import connect


def pruning_step(config: PaperConfig, part: Part, methods: frozenset[str]) -> Step:
    analysis = Analysis(windows=config.pruning_windows, widths=(), node_budget=config.pruning_budget)
    seed = config.seeds[0]

    def done() -> int:
        runs = tested_runs(config, part)
        return sum((m, seed) in runs and runs[m, seed].exists(f"pruning/{SUMMARY}") for m in methods)

    def check() -> None:
        runs = tested_runs(config, part)
        for method in sorted(methods):
            folder = runs[method, seed].child("pruning") if (method, seed) in runs else None
            if folder is None or not folder.exists(MANIFEST):
                continue
            made = folder.read_json(MANIFEST)
            windows = min(
                made["of"] if config.pruning_windows is None else config.pruning_windows, made["of"]
            )
            wanted = {"pruning_windows": windows, "pruning_budget": config.pruning_budget}
            before = {"pruning_windows": made["rows"], "pruning_budget": made["node_budget"]}
            if changed := differences(before, wanted):
                raise ResumeError(
                    f"{folder.root} was measured with other settings ({'; '.join(changed)}); repeat them, or "
                    "choose another --storage"
                )

    def do() -> None:
        connect()
        for method in sorted(methods):
            run = trained_run(config, part, method, seed)
            own = run.config  # what the paper's runs name is what its sweeps were told to use
            settings = analysis.settings(run, data_dir=own.data.path, base_model=own.model.base)
            analyse_run(run, settings, analysis, on_shard=telling(f"prunings of {run.name}"))

    return Step(
        title=f"measure what beam search prunes of {labels(methods)}",
        part=part,
        runs=lambda: len(methods),
        done=done,
        do=do,
        check=check,
        unpriced="exact search",
    )
