"""What a run needs and costs before it is started: memory, time, device hours.

from bearray.planning import CARDS, Work, estimate_run
cost = estimate_run(RunConfig(), work=Work(), device=CARDS["h100"])
print(cost.total.seconds, cost.total.basis)
"""

from bearray.planning.cards import CARDS, CPU_CORE, Device, described, device_here
from bearray.planning.estimate import RunCost, Time, estimate_run, total
from bearray.planning.shapes import Shape, shape_of
from bearray.planning.speeds import Speed, read_speeds
from bearray.planning.work import Work

__all__ = [
    "CARDS",
    "CPU_CORE",
    "Device",
    "RunCost",
    "Shape",
    "Speed",
    "Time",
    "Work",
    "described",
    "device_here",
    "estimate_run",
    "read_speeds",
    "shape_of",
    "total",
]
