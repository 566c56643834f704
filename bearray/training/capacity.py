"""What a cluster holds, now and once its autoscaler has added all that it may, and how many groups of workers
fit on its nodes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray
import yaml

from bearray.config import Placement
from bearray.errors import ConfigError

Resources = Mapping[str, float]

NODE_TYPES = "BEARRAY_NODE_TYPES"
"""Environment variable that says what an autoscaler may add where Ray cannot tell (KubeRay): JSON like
`available_node_types` of a `ray up` file, {"gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8}}."""

_NODE_GROUP = "ray.io/node-group"
"""Ray's label of a node that an autoscaler has made: its type."""
_SLACK = 1e-6  # resources are added and subtracted as floats


@dataclass(frozen=True)
class NodeType:
    """Nodes of one kind that an autoscaler may still add."""

    resources: Resources
    most: int


@dataclass(frozen=True)
class Capacity:
    """The nodes of a cluster: those that are there and those that may come."""

    nodes: tuple[Resources, ...]
    """Resources of each live node."""
    types: tuple[NodeType, ...] = ()
    most: int | None = None
    """Nodes that may still come, of all types together (None: as many as the types say)."""

    def now(self, resource: str) -> float:
        """How much of a resource the live nodes have, used or not."""
        return sum(node.get(resource, 0.0) for node in self.nodes)

    def total(self, resource: str) -> float:
        """How much of a resource there would be if the autoscaler added the nodes that have most of it."""
        return sum(node.get(resource, 0.0) for node in self._grown({resource: 1.0}))

    def room(
        self,
        worker: Resources,
        workers: int = 1,
        placement: Placement = "pack",
        *,
        driver: Resources | None = None,
        limit: int = 10_000,
    ) -> int:
        """How many groups of equal workers fit at the same time on an otherwise empty cluster.

        Args:
            worker: what one worker takes.
            workers: in a group.
            placement: of a group; "pack" and "spread" are wishes, "strict_pack" (all on one node) and
                "strict_spread" (each on another node) are conditions.
            driver: what each group takes beside its workers, on any one node.
            limit: to count no further.
        """
        free = [dict(node) for node in self._grown(worker)]
        for groups in range(limit):
            if driver and not _take_driver(free, driver, worker):
                return groups
            if not _take_group(free, worker, workers, placement):
                return groups
        return limit

    def _grown(self, worker: Resources) -> Iterator[Resources]:
        """The live nodes, and all that may come: first those that hold most such workers."""
        yield from self.nodes
        left = float("inf") if self.most is None else self.most
        for kind in sorted(self.types, key=lambda kind: -_slots(kind.resources, worker)):
            for _ in range(int(min(kind.most, left))):
                yield kind.resources
            left -= min(kind.most, left)


def _slots(free: Resources, worker: Resources) -> float:
    """How many workers a node has room for."""
    return min(
        ((free.get(name, 0.0) + _SLACK) // amount for name, amount in worker.items() if amount > 0),
        default=float("inf"),
    )


def _take(node: dict[str, float], what: Resources, times: float = 1) -> None:
    for name, amount in what.items():
        node[name] = node.get(name, 0.0) - amount * times


def _take_driver(free: list[dict[str, float]], driver: Resources, worker: Resources) -> bool:
    """Put a driver where it costs the fewest workers, and of such nodes on the one with the least room."""

    def cost(node: dict[str, float]) -> tuple[float, float]:
        before = _slots(node, worker)
        after = dict(node)
        _take(after, driver)
        return before - _slots(after, worker), before

    fitting = [node for node in free if _slots(node, driver) >= 1]
    if not fitting:
        return False
    _take(min(fitting, key=cost), driver)
    return True


def _take_group(free: list[dict[str, float]], worker: Resources, workers: int, placement: Placement) -> bool:
    """Put a group's workers on nodes; all of them or none."""
    by_room = sorted(((_slots(node, worker), i) for i, node in enumerate(free)), reverse=True)
    if placement == "strict_spread":
        chosen = [(i, 1.0) for slots, i in by_room[:workers] if slots >= 1]
    else:
        whole = [(slots, i) for slots, i in by_room if slots >= workers]
        if placement != "spread" and whole:
            chosen = [(min(whole)[1], float(workers))]  # the tightest fit leaves room for larger groups
        elif placement == "strict_pack":
            chosen = []
        else:
            chosen, left = [], float(workers)
            for slots, i in by_room:
                chosen.append((i, min(slots, left)))
                left -= min(slots, left)
    if sum(count for _, count in chosen) < workers:
        return False
    for i, count in chosen:
        _take(free[i], worker, count)
    return True


@dataclass(frozen=True)
class _Autoscaler:
    types: Mapping[str, NodeType] = field(default_factory=dict)
    most: int | None = None


def cluster_capacity() -> Capacity:
    """The capacity of the cluster that this process is connected to.

    What the autoscaler may add is known from `BEARRAY_NODE_TYPES`, else from what Ray's control service was
    told, else from the file that the autoscaler was started with, where it runs on this machine (the head, on
    which jobs run).
    """
    live = [node for node in ray.nodes() if node["Alive"]]
    nodes = tuple(_plain(node["Resources"]) for node in live)
    limits = _limits()
    made = [node["Labels"].get(_NODE_GROUP) for node in live]
    types = tuple(
        NodeType(kind.resources, max(0, kind.most - made.count(name))) for name, kind in limits.types.items()
    )
    most = None
    if limits.most is not None:
        most = max(0, limits.most - sum(name in limits.types for name in made))
    return Capacity(nodes, tuple(kind for kind in types if kind.most > 0), most)


def _plain(resources: Mapping[str, Any]) -> dict[str, float]:
    """Without the resources by which Ray names single nodes."""
    return {name: float(n) for name, n in resources.items() if not name.startswith("node:")}


def _limits() -> _Autoscaler:
    told = os.environ.get(NODE_TYPES)
    if told:
        try:
            return _parse({"available_node_types": json.loads(told)})
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{NODE_TYPES} is {told!r}; it must be JSON such as "
                '{"gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8}}'
            ) from error
    reported = ray._private.state.state.get_cluster_config()
    if reported is not None and reported.node_group_configs:
        return _Autoscaler(
            {
                group.name: NodeType(_plain(dict(group.resources)), _count(group.max_count))
                for group in reported.node_group_configs
            }
        )
    for path in _autoscaler_files(ray.get_runtime_context().gcs_address):
        try:
            with open(path, encoding="utf-8") as file:
                return _parse(yaml.safe_load(file))
        except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
            continue  # another user's, or no file of this kind: then only live nodes count
    return _Autoscaler()


def _parse(config: Mapping[str, Any]) -> _Autoscaler:
    """A file of `ray up`; the head's type is among its types and can come no second time."""
    most = config.get("max_workers")
    default = int(most) if most is not None else 0
    types = {
        name: NodeType(_plain(kind.get("resources") or {}), int(kind.get("max_workers", default)))
        for name, kind in config["available_node_types"].items()
        if name != config.get("head_node_type")
    }
    return _Autoscaler(types, None if most is None else int(most))


def _count(number: int) -> int:
    """A number of nodes as Ray's control service says it, where -1 is any number."""
    return 1_000 if number < 0 else int(number)


def _autoscaler_files(gcs_address: str) -> Iterator[str]:
    """What the autoscaler of this cluster was started with, where it runs on this machine."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:  # it has ended, or is not ours to look at
            continue
        if not any(word.endswith("monitor.py") for word in words[:4]):
            continue
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if options.get("--gcs-address") == gcs_address and "--autoscaling-config" in options:
            yield os.path.expanduser(options["--autoscaling-config"])


def describe(resources: Resources) -> str:
    """Resources in words: "4 GPUs, 8 CPUs"."""
    words = []
    for name, amount in sorted(resources.items(), key=lambda item: (item[0] != "GPU", item[0] != "CPU")):
        if name.startswith("accelerator_type:"):
            words.append(f"of type {name.partition(':')[2]}")
        elif amount > 0:
            words.append(f"{amount:g} {name}{'s' if amount != 1 and name in ('CPU', 'GPU') else ''}")
    return ", ".join(words)
