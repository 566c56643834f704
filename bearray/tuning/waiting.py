"""What the trials and actors of a job wait for, in words: a queue that says nothing looks like a hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ray
import ray.util
from ray.exceptions import RayError

from bearray.errors import BearrayError
from bearray.training.capacity import Capacity, cluster_capacity, describe

AFTER_SECONDS = 30.0
"""Waiting is mentioned after so long: starting a process takes seconds anyway."""
AGAIN_SECONDS = 300.0
"""And again after so long."""


@dataclass(frozen=True)
class Wanted:
    """Places for a group of workers that have not been found yet."""

    bundles: tuple[tuple[tuple[str, float], ...], ...]
    """What each worker takes."""
    strict: bool
    """Whether they must be on one node, or each on a node of its own."""

    @property
    def total(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for bundle in self.bundles:
            for name, amount in bundle:
                total[name] = total.get(name, 0.0) + amount
        return total


def unstarted_actors() -> int:
    """Evaluation actors of this job that Ray has found no room for yet."""
    job = ray.get_runtime_context().get_job_id()
    actors = ray._private.state.actors(job_id=ray.JobID.from_hex(job), actor_state_name="PENDING_CREATION")
    return sum(actor["ActorClassName"].startswith("MapWorker") for actor in actors.values())


def wanted() -> Iterator[Wanted]:
    """The groups of this job that Ray has found no room for yet."""
    job = ray.get_runtime_context().get_job_id()
    for key, group in ray.util.placement_group_table().items():
        if group["state"] in ("PENDING", "RESCHEDULING") and key.endswith(job):  # an id ends with its job's
            bundles = tuple(tuple(sorted(b.items())) for b in group["bundles"].values())
            yield Wanted(bundles, group["strategy"].startswith("STRICT"))


def explain(group: Wanted, capacity: Capacity) -> str:
    """What a group waits for, and what would give it."""
    need = group.total
    workers = len(group.bundles)
    text = f"waiting for {describe(need)}"
    if workers > 1:
        text += f" ({workers} workers{' under a strict placement' if group.strict else ''})"
    for name, amount in need.items():
        have, most = capacity.now(name), capacity.total(name)
        if amount <= have:
            continue
        has = describe({name: have}) if have else f"no {name}"
        if most >= amount:
            return f"{text}; the cluster has {has} now, its autoscaler may add {most - have:g}"
        return f"{text}; the cluster has {has}, and nothing is known that would add more"
    return f"{text}; the cluster has it, but in use or not on the nodes that it takes"


class Waiting:
    """Says what the job waits for when that takes long.

    Ray Train gives up its place after RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S and asks anew, so equal
    requests count as one that has waited since the first was seen.

    Args:
        say: is given each line. after, again: seconds before the first mention, and between mentions.
    """

    def __init__(
        self, say: Callable[[str], None], *, after: float = AFTER_SECONDS, again: float = AGAIN_SECONDS
    ) -> None:
        self._say, self._after, self._again = say, after, again
        self._since: dict[Wanted | str, float] = {}
        self._spoke: dict[Wanted | str, float] = {}

    def poll(self) -> None:
        """Look at the queue once.

        Raises:
            BearrayError: Ray does not answer.
        """
        if not ray.is_initialized():
            return
        try:
            found: set[Wanted | str] = set(wanted())
            actors = unstarted_actors()
            capacity = cluster_capacity()
        except RayError as error:
            raise BearrayError(f"Ray does not say what is waited for: {error}") from error
        if actors:
            found.add("evaluation actors")
        now = time.monotonic()
        self._since = {group: self._since.get(group, now) for group in found}
        self._spoke = {group: spoke for group, spoke in self._spoke.items() if group in found}
        for group, since in self._since.items():
            if now - since < self._after or now - self._spoke.get(group, -self._again) < self._again:
                continue
            self._spoke[group] = now
            if isinstance(group, Wanted):
                text = explain(group, capacity)
            else:
                text = f"waiting for room for {actors} more {group} (ray status says what they take)"
            self._say(f"{text} ({now - since:.0f} s so far)")
