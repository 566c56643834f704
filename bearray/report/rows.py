"""Which runs belong in tables, which of them are one row, and what a row is called."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bearray.config import config_hash, differences, leaves
from bearray.method_names import method_name
from bearray.report.records import Run

HARMLESS = (
    "data.path",
    "decoding.batch_size",
    "decoding.normalize",
    "evaluation.",
    "train.cpus_per_worker",
    "train.hang_timeout_s",
    "train.max_failures",
)
"""Settings that say where and how fast, or that the tables treat apart; not what was trained or decoded."""

SEEDS = ("baseline.train.seed", "train.init_adapter", "train.seed")
"""Settings in which runs of one method with several seeds differ."""


def evaluated(runs: Iterable[Run]) -> list[Run]:
    """The runs that belong in tables: finished, decoded on test, and a method or the chosen trial of a
    search.

    A chosen trial gives way to a method run with the same settings: that is the same model, trained again.
    """
    found = [r for r in runs if r.predictions and (r.role == "method" or r.chosen)]
    methods = {(r.dataset, r.base_model, r.config_hash) for r in found if r.role == "method"}
    return [r for r in found if r.role == "method" or (r.dataset, r.base_model, r.config_hash) not in methods]


def groups(runs: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """Runs by (data set, base model), both in alphabetical order."""
    by: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (r.dataset, r.base_model)):
        by.setdefault((run.dataset, run.base_model), []).append(run)
    return by


def ordered(runs: Iterable[Run]) -> list[Run]:
    """SFT, MSL, then other methods by name, BEAR last, as the paper's tables have it."""

    def key(run: Run) -> tuple[int, str, str]:
        place = {"sft": 0, "msl": 1, "bear": 3}.get(run.objective, 2)
        return place, run.method.casefold(), run.id

    return sorted(runs, key=key)


def replicates(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of one method that differ in nothing but their seed, tested on the same cases: by seed, in the
    order of the first of each.

    A run that started from another one of its sweep counts as that one's method, since which run it was
    depends on the seed, too.
    """
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        where = (run.dataset, run.base_model, run.method, run.data_hash)
        frame = next(iter(run.predictions.values()), None)
        cases = "" if frame is None else same_cases(run, frame)
        found.setdefault((*where, config_hash(_without_seed(run)), cases), []).append(run)
    alike = [sorted(group, key=lambda r: (r.seed is not None, r.seed or 0, r.id)) for group in found.values()]
    rows: list[list[Run]] = []
    for (
        group
    ) in alike:  # the same settings and seed twice are two rows: nothing is averaged that is not random
        times: Counter[int | None] = Counter()
        split: dict[int, list[Run]] = {}
        for run in group:
            split.setdefault(times[run.seed], []).append(run)
            times[run.seed] += 1
        rows += split.values()
    return rows


def first_of_each(runs: Iterable[Run]) -> list[Run]:
    """The run with the first seed of each row, to stand for the others."""
    return [group[0] for group in replicates(runs)]


def same_cases(run: Run, frame: pd.DataFrame) -> str:
    """A hash that is equal where data, and row, user and target of every test case are."""
    digest = hashlib.sha256(str(run.data_hash).encode())
    for column in ("row", "user_id", "target"):
        digest.update(frame[column].to_numpy(dtype=np.int64).tobytes())
    return digest.hexdigest()


def why_other_cases(
    a: Run, b: Run, cases_a: pd.DataFrame, cases_b: pd.DataFrame, names: Sequence[str]
) -> str:
    """What is not the same about the test cases of two runs, in one sentence without its full stop."""
    if a.data_hash != b.data_hash:
        return "their data folders differ (data_hash)"
    cases = [
        set(frame[["row", "user_id", "target"]].itertuples(index=False, name=None))
        for frame in (cases_a, cases_b)
    ]
    (x, y), (m, n) = names, map(len, cases)
    why = f"{x} has {m} cases, {y} has {n}, and {len(cases[0] & cases[1])} are in both"
    settings = differences(a.settings.get("data", {}), b.settings.get("data", {}), "data")
    return f"{why} ({'; '.join(settings)})" if settings else why


def _without_seed(run: Run) -> dict[str, Any]:
    """A run's settings by dotted name, without its seed, and with the run that it started from by its method
    only."""
    kept = {
        name: value
        for name, value in leaves(run.settings).items()
        if name not in SEEDS and (name == "decoding.normalize" or not name.startswith(HARMLESS))
    }
    start = run.started_from.rpartition("-")[0] if run.started_from else value_of(run, "train.init_adapter")
    return {**kept, "started from": start}


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """Run id -> a row label that is distinct among `runs`: the method's name, and what sets it apart where
    names collide; the seed only where nothing else does."""
    named: dict[str, str] = {}
    for run in runs:
        same = [r for r in runs if r.method == run.method]
        apart = [k for k in varying(same) if not k.startswith(HARMLESS) and k not in SEEDS]
        parts = [f"{k.rpartition('.')[2]} {value_of(run, k)}" for k in apart]
        alike = [r for r in same if all(value_of(r, k) == value_of(run, k) for k in apart)]
        if len({r.seed for r in alike}) > 1:
            parts.append(f"seed {run.seed}")
        name = method_name(run.method)
        named[run.id] = f"{name} ({', '.join(parts)})" if parts else name
    counts = Counter(named.values())
    return {i: name if counts[name] == 1 else f"{name} [{i}]" for i, name in named.items()}


def varying(runs: Sequence[Run]) -> list[str]:
    """Dotted names of the settings that are not equal in all `runs`, sorted."""
    first, *rest = runs
    return sorted({line.split(": ")[0] for r in rest for line in differences(first.settings, r.settings)})


def value_of(run: Run, name: str) -> Any:
    """A setting by its dotted name; numbers with four significant digits, None where there is none."""
    node: Any = run.settings
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return f"{node:.4g}" if isinstance(node, float) else node
