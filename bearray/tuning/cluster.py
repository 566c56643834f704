"""Connecting to Ray: the cluster that is there, or a local one for the length of the process."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

from bearray.config import RunConfig
from bearray.errors import ResourceError
from bearray.training.capacity import cluster_capacity
from bearray.training.resources import uses_gpu, worker_resources

DRIVER_CPUS = 0.1
"""CPUs of a trial's driver, which only waits for its workers; Tune refuses a trial without any resource."""

START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Environment variable: seconds for which Ray Train waits for a run's workers before it asks anew."""

PREEMPTION = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Environment variable: whether each run has a process that looks out for nodes that a cloud takes back.
Nobody takes back this machine, and the process costs each start of a run's workers two seconds of
computing."""


GCS_PORT = "RAY_GCS_SERVER_PORT"
"""Environment variable: the port at which a cluster that this process starts can be reached."""

ADDRESS = "RAY_ADDRESS"
"""Environment variable: the cluster that a process belongs to."""


def connect(address: str | None = None) -> None:
    """Connect this process to Ray, once; a process that Ray has started is connected already.

    A job's driver is told its own cluster by RAY_ADDRESS, which `ray job submit` sets.

    Args:
        address: a cluster's address, "local" for a new one on this machine, or None: the cluster that
            RAY_ADDRESS names or that runs on this machine, else a new local one.

    Raises:
        ResourceError: the cluster does not answer, or not to us.
    """
    os.environ.setdefault(START_TIMEOUT, "600")
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Instead of Tune's own tables: `bearray.tuning.watch` says more in fewer lines.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    there = canonicalize_bootstrap_address(address)  # type: ignore[arg-type]  # Ray's own hint lacks None
    if there is None:
        start_local()
        return
    try:
        ray.init(address=address, **_quiet())
    except (ConnectionError, AuthenticationError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ResourceError(
            f"cannot connect to the Ray cluster at {there}, which RAY_ADDRESS names or was the last to be "
            f"started on this machine; does it run (ray status)? {reason}"
        ) from error


def start_local(cpus: int | None = None) -> None:
    """Start a cluster of this machine alone, for the length of this process, and connect to it.

    Its processes are told its address. Without it they look for a cluster on the machine, as Ray's own
    clean-up after a stopped run does, and where two processes have started one each, that clean-up gives up
    and the stopped run's workers are never freed.

    Args:
        cpus: how many it has; None: as many as the machine.
    """
    os.environ.setdefault(PREEMPTION, "0")
    port = _free_port()
    with _environment({GCS_PORT: str(port), ADDRESS: f"127.0.0.1:{port}"}):
        # The dashboard stays on: without it Ray 2.60 never frees the workers of a stopped trial.
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=True, dashboard_host="127.0.0.1", **_quiet()
        )


def _quiet() -> dict[str, Any]:
    return {
        "log_to_driver": os.environ.get("BEARRAY_WORKER_LOGS") == "1",
        "logging_level": logging.ERROR,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """With these environment variables; afterwards as before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def concurrent_trials(runs: Sequence[RunConfig], limit: int | None = None) -> int:
    """How many trials the cluster holds at once, whichever of these runs they are, counting the nodes that
    its autoscaler may add.

    Tune counts only the driver's own CPUs, so without this number it would start trials whose workers then
    wait for each other's resources for ever.
    """
    capacity, most = cluster_capacity(), limit or 10_000
    for run in runs:
        worker = worker_resources(run.train, uses_gpu(run.train.device, capacity))
        driver = {"CPU": DRIVER_CPUS}
        most = capacity.room(worker, run.train.num_workers, run.train.placement, driver=driver, limit=most)
    return max(1, most)
