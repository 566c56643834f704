"""What runs on the cluster's head, as a small job, when the laptop asks: `python -m bearray.jobs.answer ...`.

The sweep's storage and the workers' logs may be where the laptop cannot look. The answer is one line of JSON
in the job's log.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

MARK = "bearray-answer:"
TAIL = 20
"""Lines of a failed worker's log."""
WORKERS = 5
"""Failed workers at most, the last ones."""
UNEXPECTED = ("SYSTEM_ERROR", "USER_ERROR", "NODE_OUT_OF_MEMORY")
"""Ways in which a worker ends that nobody meant."""

_RAYS_OWN = re.compile(r":(job_id|task_name|actor_name):")
"""Marks that Ray writes into workers' logs."""


def main(arguments: Sequence[str]) -> None:
    """`progress STORAGE`, or `failures DRIVER_JOB_ID`."""
    question, argument = arguments
    answer = {"progress": progress, "failures": failures}[question](argument)
    print(MARK, json.dumps(answer), flush=True)


def progress(storage: str) -> dict[str, Any]:
    """How far the sweep in a storage is, or why that cannot be said, and what the cluster's tasks wait
    for."""
    from bearray.jobs.paper import any_or_reason

    found = any_or_reason(storage)
    status = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "status"], capture_output=True, text=True, check=False
    )
    return {
        "progress": None if isinstance(found, str) else found.to_dict(),
        "reason": found if isinstance(found, str) else None,
        "demands": demands(status.stdout),
    }


def demands(status: str) -> list[str]:
    """What `ray status` says that tasks, actors and placement groups wait for."""
    lines = iter(status.splitlines())
    for line in lines:
        if line.strip() in ("Demands:", "Pending Demands:", "Total Demands:"):
            found = [after.strip() for after in _until_blank(lines)]
            return [demand for demand in found if demand != "(no resource demands)"]
    return []


def _until_blank(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            return
        yield line


def failures(driver: str) -> list[dict[str, Any]]:
    """The workers of a job that ended as nobody meant, with the last lines of their logs.

    Args:
        driver: Ray's id of the job's driver (02000000).
    """
    from ray.util.state import list_workers

    ended = [worker for worker in list_workers(detail=True, limit=10_000) if worker.exit_type in UNEXPECTED]
    ended.sort(key=lambda worker: worker.end_time_ms or 0)
    mine: list[dict[str, Any]] = []
    for worker in reversed(ended):
        log = _log(worker.node_id, driver, worker.pid)
        if log is not None and len(mine) < WORKERS:
            why = f"{worker.exit_type}: {worker.exit_detail}"
            mine.append({"pid": worker.pid, "node": worker.ip, "why": why, "log": log})
    return mine[::-1]


def _log(node: str, driver: str, pid: int) -> list[str] | None:
    """The last lines of what a worker printed; None where it worked for another job."""
    from ray.util.state import get_log, list_logs

    try:
        groups = list_logs(node_id=node, glob_filter=f"worker-*-{driver}-{pid}.*")
    except Exception as error:  # Ray has no common error here; the node may be gone, and its logs with it
        return [f"(its log cannot be read: {type(error).__name__})"]
    names = {name for group in groups.values() for name in group}
    lines: list[str] = []
    for name in sorted(names, key=lambda name: name.endswith(".err")):
        text = "".join(get_log(node_id=node, filename=name, tail=TAIL))
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]
        lines += [line for line in plain if line.strip() and not _RAYS_OWN.match(line)]
    return lines[-TAIL:] if names else None


if __name__ == "__main__":
    main(sys.argv[1:])
