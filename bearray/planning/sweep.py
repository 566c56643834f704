"""What a sweep costs: its runs in the order in which a sweep trains them, on all devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bearray.config import RunConfig
from bearray.planning.cards import Device
from bearray.planning.estimate import RunCost, Time, estimate_run, total
from bearray.planning.shapes import Shape
from bearray.planning.speeds import Speed
from bearray.planning.work import Work


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """A method's runs in a sweep."""

    name: str
    run: RunCost
    """One of its runs."""
    runs: int
    """How many are trained."""
    tested: int
    """How many of them are tested."""
    searched: bool

    @property
    def device_hours(self) -> Time:
        """Of all its runs."""
        train = self.run.training.times(self.runs * self.run.workers / 3_600)
        return total([train, self.run.test.times(self.tested * self.run.actors / 3_600)])


@dataclass(frozen=True, kw_only=True)
class SweepCost:
    """A sweep on all devices."""

    methods: tuple[MethodCost, ...]
    devices: int
    at_a_time: int
    """Runs that train side by side."""
    wall: Time
    """From start to end."""

    @property
    def busy_hours(self) -> Time:
        """Device hours in which something is computed."""
        return total(method.device_hours for method in self.methods)

    @property
    def held_hours(self) -> Time:
        """Device hours if all devices are held from start to end."""
        return self.wall.times(self.devices / 3_600)


def sweep_cost(
    runs: Sequence[RunConfig],
    *,
    work: Work,
    device: Device,
    devices: int,
    nodes: int = 1,
    searched: Sequence[str] = ("bear",),
    trials: int = 20,
    seeds: int = 1,
    speeds: Sequence[Speed] = (),
    shape: Shape | None = None,
) -> SweepCost:
    """What training, searching and testing these runs takes.

    As a sweep does: methods that are not searched first, then each search, then what the searches chose with
    the other seeds; then one test after the other, each on all devices.

    Args:
        runs: one for each method, with its objective and workers. work, device, speeds, shape: as
        `estimate_run`. devices: of all nodes. nodes: a run stays on one where it fits.
        searched: names of objectives whose settings are searched. trials: of each search.
        seeds: of each method.
    """
    found = []
    for run in runs:
        cost = estimate_run(run, work=work, device=device, speeds=speeds, actors=devices, shape=shape)
        is_searched = run.objective.name in searched
        found.append(
            MethodCost(
                name=run.objective.name,
                run=cost,
                runs=trials + seeds - 1 if is_searched else seeds,
                tested=seeds,
                searched=is_searched,
            )
        )
    workers = runs[0].train.num_workers
    a_node = devices // nodes
    slots = max(1, nodes * (a_node // workers) if workers <= a_node else devices // workers)
    stages = [_side_by_side([(m.run.training, m.runs) for m in found if not m.searched], slots)]
    stages += [_side_by_side([(m.run.training, trials)], slots) for m in found if m.searched]
    stages.append(_side_by_side([(m.run.training, seeds - 1) for m in found if m.searched], slots))
    tests = [m.run.test.times(m.tested) for m in found]
    return SweepCost(methods=tuple(found), devices=devices, at_a_time=slots, wall=total([*stages, *tests]))


def _side_by_side(runs: Sequence[tuple[Time, int]], slots: int) -> Time:
    """Runs on so many places, the longest first, each where there is room first."""
    each = sorted((t for t, count in runs for _ in range(count)), key=lambda t: -t.seconds)
    ends: list[list[Time]] = [[] for _ in range(slots)]
    for time in each:
        min(ends, key=lambda place: sum(t.seconds for t in place)).append(time)
    return max((total(place) for place in ends), key=lambda t: t.seconds)
