"""What efficiency.json tells beside its times, as sentences: what was measured, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bearray.efficiency.statistics import LEVEL, Row
from bearray.provenance import CHANGED


def facts(content: Mapping[str, Any]) -> list[str]:
    """What was measured, how often and on which machine."""
    settings = content["settings"]
    found = []
    if training := content["training"]:
        data = settings["run"]["data"]["train_windows"]
        workers = training["workers"]
        found.append(
            f"Training: {_count(len(training['rounds']), 'round')} of "
            f"{_count(settings['steps'], 'optimiser step')} of {training['batch_size']} windows on "
            f"{_count(workers, 'worker')}, after {_count(settings['warmup_steps'], 'step')} of warm-up; "
            f"an epoch is {max(training['steps_per_epoch'].values()):g} steps"
            + (f" ({data:,} training windows)." if data else ".")
        )
        for label, kinds in training["kinds"].items():
            shares = ", ".join(f"{share:.0%} {kind.upper()}" for kind, share in kinds.items())
            found.append(
                f"{label} takes turns of several losses: a step is the mean over them as "
                f"{settings['run']['train']['epochs']} epochs schedule them ({shares})."
            )
    if decoding := content["decoding"]:
        found.append(
            f"Decoding: {_count(len(decoding['rounds']), 'round')} of "
            f"{_count(decoding['passes_size'], 'user')} each, "
            f"{decoding['titles']:,} titles, one process."
        )
    for name in ("training", "decoding"):
        if part := content[name]:
            where = f"{_machine(part['machine'])}{_load(part)}"
            found.append(f"{name.capitalize()} was measured on {where}.")
            if part["energy_sources"]:
                machines = part.get("energy_machines", 1)  # earlier benchmarks metered one
                of = f" on {machines} machines, added up; the first one's sources" if machines > 1 else ""
                found.append(f"Energy by CodeCarbon{of}: {', '.join(part['energy_sources'])}.")
    found.append(
        "Measured in one process, without Ray."
        if settings["local"]
        else "Measured under Ray: training steps in Train workers, decoding in a Data actor."
    )
    return found


def doubts(content: Mapping[str, Any], measured: Mapping[str, Sequence[Row]]) -> list[str]:
    """What a reader must know before trusting the times: too few rounds, a machine that was not free, code in
    no commit.

    Args:
        content: of the file.
        measured: its rows of training and of decoding.
    """
    found = []
    if content["finished"] is None:
        found.append("The benchmark was interrupted; these are the rounds it has finished so far.")
    for name, rows in measured.items():
        if rows and rows[0].seconds.coverage < LEVEL:
            found.append(
                f"With {_count(len(content[name]['rounds']), 'round')} of {name}, intervals are the range of "
                f"all rounds and cover less than {LEVEL:.0%} ({rows[0].seconds.coverage:.0%})."
            )
    for name in measured:
        loads = _loads(content[name]) if content[name] else []
        cores = content[name]["machine"]["cores"] if loads else None
        if cores and max(loads) > cores:
            found.append(
                f"The machine was overloaded while {name} was measured: a load average of up to "
                f"{max(loads):.1f} on {_count(cores, 'core')}. Times are too long by what other work took; "
                "ratios, paired by round, suffer less."
            )
    revision = content["git"]
    if revision is not None and str(revision).endswith(CHANGED):
        found.append(
            f"Measured with uncommitted changes to revision {str(revision).removesuffix(CHANGED)[:12]}: what "
            "was timed is in no commit."
        )
    return found


def _loads(part: Mapping[str, Any]) -> list[float]:
    """Load averages before and after each round, in their order."""
    return [float(x) for r in part["rounds"] for x in r["load"] if x is not None]


def _load(part: Mapping[str, Any]) -> str:
    loads = _loads(part)
    if not loads:
        return ""
    return f"; load average {loads[0]:.1f} at the start, {loads[-1]:.1f} at the end, {max(loads):.1f} at most"


def _machine(machine: Mapping[str, Any]) -> str:
    """An NVIDIA H100 / 2 cores of an AMD EPYC, 1 thread, PyTorch 2.13.0."""
    versions = machine["versions"]
    cores, threads = machine["cores"], machine["threads"]
    cpu = f"{_count(cores, 'core')} of {machine['cpu']}, {_count(threads, 'thread')}"
    gpu = f"one {machine['gpu']} a worker (CUDA {machine['cuda']}), " if machine["gpu"] else ""
    return f"{gpu}{cpu}, PyTorch {versions.get('torch', '?')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
