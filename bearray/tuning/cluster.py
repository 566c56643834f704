"""Connecting to Ray: the cluster that is there, or a local one for the length of the process."""

from __future__ import annotations

import logging
import os

import ray

from bearray.config import RunConfig
from bearray.training.trainer import cluster_has_gpus

DRIVER_CPUS = 0.1
"""CPUs of a trial's driver, which only waits for its workers; Tune refuses a trial without any resource."""


def connect(address: str | None = None) -> None:
    """Connect this process to Ray, once.

    Args:
        address: a cluster's address, "local" for a new one on this machine, or None: the cluster that
            RAY_ADDRESS names or that runs on this machine, else a new local one.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    # Instead of Tune's own tables: `bearray.tuning.watch` says more in fewer lines.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # The dashboard stays on, as by default: without it Ray 2.60 never frees the workers of a stopped trial.
    ray.init(
        address=address,
        log_to_driver=os.environ.get("BEARRAY_WORKER_LOGS") == "1",
        logging_level=logging.ERROR,
    )


def concurrent_trials(config: RunConfig, limit: int | None = None) -> int:
    """How many trials of this size the cluster holds at once.

    Tune counts only the driver's own 0.1 CPU, so without this number it would start trials whose workers then
    wait for each other's resources for ever.
    """
    have, train = ray.cluster_resources(), config.train
    per_trial = train.num_workers * train.cpus_per_worker + DRIVER_CPUS
    room = have.get("CPU", 1) / per_trial
    if cluster_has_gpus():
        room = min(room, have["GPU"] / train.num_workers)
    return max(1, min(int(room + 1e-9), limit or 2**31))
