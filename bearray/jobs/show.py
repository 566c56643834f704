"""A sweep's progress and a cluster's jobs as lines of text.

What others wrote (names, errors, commands) is shown without signs that a terminal obeys.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from bearray.jobs.ask import PREFIX
from bearray.jobs.client import ENDED, state
from bearray.jobs.paper import PaperProgress
from bearray.jobs.progress import Progress, RunProgress, Stage
from bearray.plain import printable, visible

_COMMAND_WIDTH = 90


def job_lines(info: Any, now: float | None = None) -> Iterator[str]:
    """One job: its state, for how long, its command."""
    yield f"job {printable(info.submission_id or info.job_id)}: {state(info)}{_duration(info, now)}"
    yield f"  {printable(info.entrypoint)}"
    if state(info) == "FAILED" and info.message and not info.message.isspace():
        yield f"  {printable(info.message.strip().splitlines()[-1])}"


def jobs_lines(infos: Sequence[Any], now: float | None = None) -> Iterator[str]:
    """All jobs of a cluster, the newest last, but for this package's own short questions."""
    mine = [i for i in infos if i.submission_id and not i.submission_id.startswith(PREFIX)]
    if not mine:
        yield "the cluster has no jobs"
        return
    width = max(len(printable(info.submission_id)) for info in mine)
    for info in sorted(mine, key=lambda info: info.start_time or 0):
        command = printable(info.entrypoint)
        if len(command) > _COMMAND_WIDTH:
            command = f"{command[: _COMMAND_WIDTH - 3]}..."
        name = printable(info.submission_id)
        yield f"{name:<{width}}  {state(info):<9}{_duration(info, now):<18}  {command}"


def _duration(info: Any, now: float | None) -> str:
    if not info.start_time:
        return ""
    ended = state(info) in ENDED and info.end_time
    seconds = (info.end_time / 1000 if ended else now or time.time()) - info.start_time / 1000
    return f" {'after' if ended else 'for'} {in_words(seconds)}"


def in_words(seconds: float) -> str:
    """A length of time: 45 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress_lines(progress: Progress | PaperProgress) -> Iterator[str]:
    """A sweep: its stages, then its runs. The paper: its baselines, what has not begun, then its sweeps."""
    place = printable(progress.storage)
    if isinstance(progress, Progress):
        yield f"sweep on {printable(progress.dataset)}, {printable(progress.scale)} scale, in {place}"
        yield from _sweep_lines(progress)
        return
    yield f"paper in {place}"
    for stage in progress.baselines:
        yield f"  baselines of {printable(stage.name)}: {_stage(stage)}"
    for part in progress.waiting:
        yield f"  {printable(part)}: not begun"
    yield f"  document {'written' if progress.document else 'not yet'}"
    for sweep in progress.sweeps:
        yield printable(sweep.storage.removeprefix(f"{progress.storage}/"))
        yield from _sweep_lines(sweep)


def demand_lines(demands: Sequence[str]) -> Iterator[str]:
    """What the cluster's tasks wait for, as Ray words it."""
    if demands:
        yield "the cluster's tasks wait for:"
        yield from (f"  {printable(demand)}" for demand in demands)


def _sweep_lines(progress: Progress) -> Iterator[str]:
    for stage in progress.stages:
        yield f"  {printable(stage.name):<8} {_stage(stage)}"
    if progress.report is not None:
        yield f"  {'report':<8} {'written' if progress.report else 'not yet'}"
    width = max((len(printable(run.run)) for run in progress.runs), default=0)
    for run in progress.runs:
        yield f"  {printable(run.run):<{width}}  {_run(run)}"
    best = max(
        (run for run in progress.runs if run.best is not None), key=lambda run: run.best or 0.0, default=None
    )
    if best is not None:
        yield f"best validation NDCG@10 so far: {best.best:.4f}, {printable(best.run)}"


def _stage(stage: Stage) -> str:
    states = sorted(stage.states.items())
    others = [f"{count} {printable(name)}" for name, count in states if name != "finished"]
    if stage.waiting:
        others.append(f"{stage.waiting} waiting")
    return ", ".join([f"{stage.finished} of {stage.total} finished", *others])


def _run(run: RunProgress) -> str:
    parts = [f"{printable(run.state):<9} epoch {run.epoch:.4g} of {run.epochs}"]
    if run.best is not None:
        parts.append(f"best validation NDCG@10 {run.best:.4f}")
    if run.of_shards:
        parts.append(f"test shards {run.shards} of {run.of_shards}")
    if run.error:
        parts.append(printable(run.error))
    return ", ".join(parts)


def failure_lines(failures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Workers that ended as nobody meant, as `bearray.jobs.answer` tells of them."""
    for failure in failures:
        yield printable(f"worker {failure['pid']} on {failure['node']} ended: {failure['why']}")
        yield from (f"  | {visible(line)}" for line in failure["log"])
