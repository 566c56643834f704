"""Connecting to Ray: the cluster that is there, or a local one for the length of the process."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import ray

from bearray.config import RunConfig
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


def connect(address: str | None = None) -> None:
    """Connect this process to Ray, once; a process that Ray has started is connected already.

    A job's driver is told its own cluster by RAY_ADDRESS, which `ray job submit` sets.

    Args:
        address: a cluster's address, "local" for a new one on this machine, or None: the cluster that
            RAY_ADDRESS names or that runs on this machine, else a new local one.
    """
    os.environ.setdefault(START_TIMEOUT, "600")
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Instead of Tune's own tables: `bearray.tuning.watch` says more in fewer lines.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    watched = os.environ.get(PREEMPTION)
    os.environ.setdefault(PREEMPTION, "0")
    # The dashboard stays on, as by default: without it Ray 2.60 never frees the workers of a stopped trial.
    ray.init(
        address=address,
        log_to_driver=os.environ.get("BEARRAY_WORKER_LOGS") == "1",
        logging_level=logging.ERROR,
    )
    if watched is None and not _is_own():
        del os.environ[PREEMPTION]


def _is_own() -> bool:
    """Whether the cluster was started by this process, and so is this machine alone."""
    node = ray._private.worker._global_node
    return node is not None and node.is_head()


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
