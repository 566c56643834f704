"""What objectives and decoders cost, from STORAGE/efficiency/efficiency.json (`bearray bench objectives`),
and beside it how well the runs of the same storage recommend."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.config import ObjectiveConfig, from_dict, to_dict
from bearray.efficiency.results import FILE, FOLDER, read
from bearray.efficiency.statistics import Interval, Row, decoding_rows, training_rows
from bearray.errors import DataError
from bearray.objectives.base import Objective
from bearray.objectives.registry import OBJECTIVES, fields_used
from bearray.provenance import CHANGED
from bearray.report.cells import Table
from bearray.report.headline import primary
from bearray.runs import Storage

METRIC = "ndcg@10"
_SAME_TIME = (
    "lam", "xi", "tau", "mix", "contrast", "beta", "smoothing", "kl_weight", "theta", "prior_weight",
    "last_weight", "power", "uninformative_weight",
)  # fmt: skip
"""Numbers of an objective whose size does not change what is computed, so a run with others is the same in
cost; `_switches` has those among them that turn something on or off."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run of the storage, and what an epoch of its objective costs."""

    label: str
    objective: str
    """The label of the objective that was timed."""
    epoch_seconds: Interval
    ndcg: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """One benchmark."""

    dataset: str
    base_model: str
    base_model_kind: str
    finished: bool
    training: tuple[Row, ...]
    decoding: tuple[Row, ...]
    points: tuple[Point, ...]
    """Runs of the same data and base model whose objective was timed."""
    facts: tuple[str, ...]
    """What was measured, how often and on which machine, as sentences."""
    notes: tuple[str, ...]


def read_efficiency(storage: Path, tables: Sequence[Table] = ()) -> Efficiency | None:
    """The benchmark in a storage folder; None where there is none.

    Args:
        storage: a local folder.
        tables: of the runs in it, as `bearray.report.tables.build_tables` returns.

    Raises:
        DataError: efficiency.json is damaged, or of another schema.
    """
    path = storage / FOLDER / FILE
    if not path.exists():
        return None
    content = read(Storage(str(path.parent)))
    try:
        return parse(content, tables)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def parse(content: Mapping[str, Any], tables: Sequence[Table] = ()) -> Efficiency:
    """efficiency.json as rows, points and sentences."""
    training, decoding = content["training"], content["decoding"]
    rows = training_rows(training) if training else []
    points, differing = _points(content, rows, tables)
    notes = [str(n) for n in content["notes"]]
    if content["finished"] is None:
        notes.append("The benchmark was interrupted; these are the rounds it has finished so far.")
    for part, what in ((training, "training"), (decoding, "decoding")):
        if part and 0 < len(part["rounds"]) < 6:
            n = len(part["rounds"])
            notes.append(
                f"With {_count(n, 'round')} of {what}, intervals are the range of all rounds and cover "
                f"less than 95% ({100 * (1 - 0.5 ** (n - 1)) if n > 1 else 0:.0f}%)."
            )
    return Efficiency(
        dataset=str(content["dataset"]),
        base_model=str(content["base_model"]),
        base_model_kind=str(content["base_model_kind"]),
        finished=content["finished"] is not None,
        training=tuple(rows),
        decoding=tuple(decoding_rows(decoding) if decoding else []),
        points=tuple(points),
        facts=tuple(_facts(content)),
        notes=tuple([*notes, *_doubts(content), *differing]),
    )


def _facts(content: Mapping[str, Any]) -> list[str]:
    settings = content["settings"]
    facts = []
    if training := content["training"]:
        data = settings["run"]["data"]["train_windows"]
        workers = training["workers"]
        facts.append(
            f"Training: {_count(len(training['rounds']), 'round')} of "
            f"{_count(settings['steps'], 'optimiser step')} of {training['batch_size']} windows on "
            f"{_count(workers, 'worker')}, after {_count(settings['warmup_steps'], 'step')} of warm-up; "
            f"an epoch is {max(training['steps_per_epoch'].values()):g} steps"
            + (f" ({data:,} training windows)." if data else ".")
        )
        for label, kinds in training["kinds"].items():
            shares = ", ".join(f"{share:.0%} {kind.upper()}" for kind, share in kinds.items())
            facts.append(
                f"{label} takes turns of several losses: a step is the mean over them as "
                f"{settings['run']['train']['epochs']} epochs schedule them ({shares})."
            )
    if decoding := content["decoding"]:
        facts.append(
            f"Decoding: {_count(len(decoding['rounds']), 'round')} of "
            f"{_count(decoding['passes_size'], 'user')} each, "
            f"{decoding['titles']:,} titles, one process."
        )
    for name in ("training", "decoding"):
        if part := content[name]:
            where = f"{machine_words(part['machine'])}{_load(part)}"
            facts.append(f"{name.capitalize()} was measured on {where}.")
            if part["energy_sources"]:
                machines = part.get("energy_machines", 1)  # earlier benchmarks metered one
                of = f" on {machines} machines, added up; the first one's sources" if machines > 1 else ""
                facts.append(f"Energy by CodeCarbon{of}: {', '.join(part['energy_sources'])}.")
    facts.append(
        "Measured in one process, without Ray."
        if settings["local"]
        else "Measured under Ray: training steps in Train workers, decoding in a Data actor."
    )
    return facts


def _doubts(content: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the times: a machine that was not free, code in no commit."""
    doubts = []
    for name in ("training", "decoding"):
        loads = _loads(content[name]) if content[name] else []
        cores = content[name]["machine"]["cores"] if loads else None
        if cores and max(loads) > cores:
            doubts.append(
                f"The machine was overloaded while {name} was measured: a load average of up to "
                f"{max(loads):.1f} on {_count(cores, 'core')}. Times are too long by what other work took; "
                "ratios, paired by round, suffer less."
            )
    revision = content["git"]
    if revision is not None and str(revision).endswith(CHANGED):
        doubts.append(
            f"Measured with uncommitted changes to revision {str(revision).removesuffix(CHANGED)[:12]}: what "
            "was timed is in no commit."
        )
    return doubts


def _loads(part: Mapping[str, Any]) -> list[float]:
    """Load averages before and after each round, in their order."""
    return [float(x) for r in part["rounds"] for x in r["load"] if x is not None]


def machine_words(machine: Mapping[str, Any]) -> str:
    """An NVIDIA H100 / 2 cores of an AMD EPYC, 1 thread, PyTorch 2.13.0."""
    versions = machine["versions"]
    cores, threads = machine["cores"], machine["threads"]
    cpu = f"{_count(cores, 'core')} of {machine['cpu']}, {_count(threads, 'thread')}"
    gpu = f"one {machine['gpu']} a worker (CUDA {machine['cuda']}), " if machine["gpu"] else ""
    return f"{gpu}{cpu}, PyTorch {versions.get('torch', '?')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _load(part: Mapping[str, Any]) -> str:
    loads = _loads(part)
    if not loads:
        return ""
    return f"; load average {loads[0]:.1f} at the start, {loads[-1]:.1f} at the end, {max(loads):.1f} at most"


def _points(
    content: Mapping[str, Any], rows: Sequence[Row], tables: Sequence[Table]
) -> tuple[list[Point], list[str]]:
    """The runs whose objective was timed, and a note where they were trained in other batches."""
    name = content["base_model"]
    mine = [
        t
        for t in tables
        if t.dataset == content["dataset"]
        and t.base_model.rstrip("/").rpartition("/")[2] == name
        and t.parts
        and all(r.run.data_hash == content["data_hash"] for r in t.parts[0].rows)
    ]
    if not mine or not rows:
        return [], []
    part = primary(mine).part("all")
    by_label = {row.label: row for row in rows}
    points, differing = [], set()
    for row in part.rows if part else ():
        label = _timed(row.run.settings, content["training"]["contenders"], content["settings"]["run"])
        seconds = by_label[label].epoch_seconds if label else None
        if label is None or seconds is None:
            continue
        cell = row.cells[METRIC]
        points.append(
            Point(
                label=row.label,
                objective=label,
                epoch_seconds=seconds,
                ndcg=cell.mean,
                low=cell.low,
                high=cell.high,
            )
        )
        contender = content["training"]["contenders"][label]
        differing |= _differing(row.run.settings, content["settings"]["run"], contender)
    notes = []
    if differing:
        notes.append(
            "The runs in the figure of NDCG@10 were trained with other settings than were timed here: "
            f"{', '.join(sorted(differing))}. Their own epochs may have taken other times."
        )
    return points, notes


def _timed(
    run: Mapping[str, Any], contenders: Mapping[str, Mapping[str, Any]], timed: Mapping[str, Any]
) -> str | None:
    """The timed objective that computes the same as a run's: one with its LoRA dropout, else any."""
    own = _work(run.get("objective", {}))
    same = [label for label, c in contenders.items() if _work(c) == own]
    dropout = run.get("model", {}).get("lora_dropout")
    exact = [label for label in same if lora_dropout(contenders[label], timed) == dropout]
    return next(iter([*exact, *same]), None)


def _work(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of an objective's settings decides what is computed in a step."""
    default = to_dict(ObjectiveConfig())
    full = {name: settings.get(name, value) for name, value in default.items()}
    used = fields_used(from_dict(ObjectiveConfig, full))
    return {name: full[name] for name in used - set(_SAME_TIME)} | _switches(full, used)


def _switches(full: Mapping[str, Any], used: Collection[str]) -> dict[str, bool]:
    """Of the numbers whose size costs nothing: what they turn on."""
    on = {
        "smoothing": full["smoothing"] is None,  # scores of SASRec for all titles in each step
        "mix": full["mix"] != 0,  # a second margin
    }
    return {f"{name} on": value for name, value in on.items() if name in used}


_MATTERS = (
    ("data", "train_windows"),
    ("model", "backbone"),
    ("model", "dtype"),
    ("model", "lora_r"),
    ("model", "lora_targets"),
    ("model", "max_prompt_tokens"),
    ("train", "batch_size"),
    ("train", "micro_batch_size"),
    ("train", "num_workers"),
    ("train", "precision"),
    ("train", "gradient_checkpointing"),
)
"""Settings of every run that decide how long its epoch takes; `_differing` has two more."""


def lora_dropout(contender: Mapping[str, Any], timed: Mapping[str, Any]) -> float:
    """The LoRA dropout that a contender was timed with; in earlier benchmarks it was the run's for all.

    Without dropout, objective (3.1) takes its prompts' keys and values from the training pass.
    """
    return float(contender.get("lora_dropout", timed["model"]["lora_dropout"]))


def _differing(run: Mapping[str, Any], timed: Mapping[str, Any], contender: Mapping[str, Any]) -> set[str]:
    """Settings that decide how long an epoch takes and that a run has otherwise than its contender had."""
    found = {
        f"{group}.{name}"
        for group, name in _MATTERS
        if name in run.get(group, {}) and run[group][name] != timed[group].get(name)
    }
    dropout = run.get("model", {}).get("lora_dropout")
    if dropout is not None and dropout != lora_dropout(contender, timed):
        found.add("model.lora_dropout")
    epochs = run.get("train", {}).get("epochs")
    if epochs is not None and epochs != timed["train"]["epochs"] and _takes_turns(contender):
        found.add("train.epochs")
    return found


def _takes_turns(contender: Mapping[str, Any]) -> bool:
    """Whether an objective has epochs of several losses, whose shares the number of epochs decides."""
    return OBJECTIVES[contender["name"]].schedule is not Objective.schedule
