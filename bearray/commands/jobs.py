"""`bearray jobs status|logs|fetch`: sweeps on a cluster, from the machine that submitted them."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from bearray.errors import BearrayError, ConfigError, ResourceError

Job = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="JOB")]


def status(
    job: Job = None, *, storage: str | None = None, address: str | None = None, json: bool = False
) -> int:
    """How far a sweep is: runs of each stage that are finished, going on, failed and waiting; epochs, best
    validation NDCG@10 and test shards of each run; what the cluster's tasks wait for. Of `bearray paper`: its
    parts, each of which is a sweep, and the baselines.

    Without a job: the cluster's jobs. With --storage alone: of the sweep in a storage that can be read from
    here, and no cluster is asked. The exit code is 1 if the job failed or was stopped, else 0.

    Args:
        job: Submission id, as `ray job submit` prints it.
        storage: Storage path, if the job's command does not give it.
        address: The dashboard's address (RAY_API_SERVER_ADDRESS, RAY_ADDRESS, else http://127.0.0.1:8265).
        json: Print JSON.
    """
    from bearray.jobs.ask import PREFIX
    from bearray.jobs.client import asked, connect, job_info, state
    from bearray.jobs.paper import read_any
    from bearray.jobs.show import demand_lines, job_lines, jobs_lines, progress_lines
    from bearray.plain import printable

    if job is None and storage is not None:
        progress = read_any(storage)
        _print(json, progress.to_dict(), progress_lines(progress))
        return 0
    client = connect(address)
    if job is None:
        infos = asked(client.list_jobs)
        _print(
            json,
            [
                _about(info)
                for info in infos
                if info.submission_id and not info.submission_id.startswith(PREFIX)
            ],
            jobs_lines(infos),
        )
        return 0
    info = job_info(client, job)
    found, reason, demands = _progress(client, info, storage)
    lines = [*job_lines(info), *(progress_lines(found) if found else [printable(str(reason))])]
    lines += demand_lines(demands)
    about = {"progress": found.to_dict() if found else None, "reason": reason, "demands": demands}
    _print(json, _about(info) | about, lines)
    return int(state(info) in ("FAILED", "STOPPED"))


def _print(as_json: bool, value: Any, lines: Any) -> None:
    print(json_format.dumps(value, indent=2) if as_json else "\n".join(lines))


def _about(info: Any) -> dict[str, Any]:
    """A job for JSON. Not its runtime environment, which may hold what is nobody's business."""
    from bearray.jobs.client import state

    names = ("start_time", "end_time", "message", "entrypoint")
    return {"job": info.submission_id, "state": state(info), **{name: getattr(info, name) for name in names}}


def _progress(client: Any, info: Any, storage: str | None) -> tuple[Any, str | None, list[str]]:
    """The sweep's progress, or why there is none, and what the cluster waits for: read here where the
    storage can be, else by the cluster's head."""
    from bearray.jobs.ask import ask
    from bearray.jobs.paper import any_from_dict
    from bearray.jobs.where import lost

    try:
        place = _storage(client, info, storage)
    except ConfigError as error:
        return None, str(error), []
    try:
        answer = ask(client, "progress", place)
    except ResourceError as error:  # the job's own state is known all the same
        return None, str(error), []
    found = None if answer["progress"] is None else any_from_dict(answer["progress"])
    if lost(place):
        answer["demands"].append(
            f"(nothing, but {place} is in the job's own copy of the folder, which Ray deletes when the "
            "job has ended: "
            "submit it again with an absolute --storage)"
        )
    return found, answer["reason"], answer["demands"]


def _storage(client: Any, info: Any, given: str | None) -> str:
    from bearray.jobs.client import asked
    from bearray.jobs.where import storage_of

    if given is not None:
        return given
    log = asked(lambda: client.get_job_logs(info.submission_id))
    return storage_of(info.entrypoint, log, job=info.submission_id)


def logs(job: Job = None, *, follow: bool = True, patience: float = 600.0, address: str | None = None) -> int:
    """Follow a job's log until it ends, also when the connection is lost for a while; if it failed, the last
    lines of its workers that died.

    The exit code is 0 if the job succeeded (or goes on, with --no-follow), 1 if it failed or was stopped.

    Args:
        job: Submission id, as `ray job submit` prints it.
        follow: Wait for the end; --no-follow prints what there is.
        patience: Seconds to wait for a lost connection.
        address: The dashboard's address (RAY_API_SERVER_ADDRESS, RAY_ADDRESS, else http://127.0.0.1:8265).
    """
    from bearray.jobs import follow as following
    from bearray.jobs.client import asked, connect, job_info, state

    if job is None:
        raise ConfigError("which job? bearray jobs status lists them: bearray jobs logs JOB")
    if follow:
        info = following.follow(job, address, _write, _say, patience=patience)
    else:
        client = connect(address)
        info = job_info(client, job)
        _write(asked(lambda: client.get_job_logs(job)))
    if state(info) in ("FAILED", "STOPPED"):
        _say(f"job {job}: {state(info)}")
        _show_failures(connect(address), info)
        return 1
    return 0


def _show_failures(client: Any, info: Any) -> None:
    from bearray.jobs.ask import ask
    from bearray.jobs.show import failure_lines

    driver = info.driver_info.id if info.driver_info else None
    if driver is None:  # it never reached Ray, so there were no workers
        return
    try:
        for line in failure_lines(ask(client, "failures", driver)):
            _say(line)
    except BearrayError as error:  # the log is what was asked for, and it is there
        _say(f"the workers' logs cannot be read: {error}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fetch(
    job: Job = None,
    *,
    storage: str | None = None,
    to: Path | None = None,
    cluster: Path | None = None,
    checkpoints: bool = False,
    address: str | None = None,
) -> None:
    """Bring a sweep's report, run folders and search here, so that `bearray report`, `dashboard`, `pruning`
    and `recommend` (the last two with --checkpoints) work on them. Of `bearray paper`: the document and all
    of its parts.

    From s3://..., gs://... or a folder that this machine has, they are read directly; from the disks of the
    cluster's head by rsync over ssh, with --cluster. Run it again, also after Ctrl-C, to bring what is new:
    files of the same size and time are not read again.

    Args:
        job: Submission id; not needed with --storage.
        storage: Storage path, if the job's command does not give it; the dashboard is then not asked.
        to: Folder to make or to complete (default: results/, and the storage's last name).
        cluster: The file that `ray up` was given, for storage on the disks of the head.
        checkpoints: Bring the runs' checkpoints, too, which are most of the bytes.
        address: The dashboard's address (RAY_API_SERVER_ADDRESS, RAY_ADDRESS, else http://127.0.0.1:8265).
    """
    from bearray.addresses import refuse_secrets
    from bearray.jobs.client import connect, job_info
    from bearray.jobs.fetch import fetch as bring
    from bearray.jobs.where import lost
    from bearray.paper.stored import DOCUMENT
    from bearray.plain import printable

    if storage is None:
        if job is None:
            raise ConfigError("fetch what? Give a job's submission id, or --storage")
        client = connect(address)
        storage = _storage(client, job_info(client, job), None)
        if lost(storage):
            raise ConfigError(
                f"the job wrote to {storage}, its own copy of the folder, which Ray deletes; submit it "
                "again with an "
                "absolute --storage"
            )
    target = to or Path("results") / storage.rstrip("/").rpartition("/")[2]
    refuse_secrets(storage)
    _say(printable(f"fetching {storage} into {target}"))
    _say(bring(storage, target, cluster_file=cluster, checkpoints=checkpoints))
    pages = [target / "report" / "index.html", target / DOCUMENT]
    print(printable(str(next((page for page in pages if page.is_file()), target))))
