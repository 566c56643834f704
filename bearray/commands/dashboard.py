"""`bearray dashboard STORAGE`: TensorBoard and optuna-dashboard."""

from __future__ import annotations

import signal
import time
from types import FrameType

from tyro.conf import Positional

_POLL_SECONDS = 1.0


def dashboard(storage: Positional[str]) -> None:
    """Start TensorBoard on a sweep's trials and optuna-dashboard on each of its searches, until Ctrl-C.

    Of `bearray paper`'s storage: on all its parts, one TensorBoard and an optuna-dashboard for each search
    that has begun. The folder of one part (DATA_SET/BACKBONE-MODEL) shows that part alone.

    Both listen on free ports of 127.0.0.1, so only this machine reaches them; for another machine's, forward
    the ports as is printed. A sweep that is running can be watched. Ray's own dashboard, on port 8265 of the
    cluster's head, shows nodes, jobs and workers.

    Args:
        storage: The sweep's storage folder; of one in s3://... or gs://..., a copy (bearray jobs fetch).
    """
    from bearray.dashboards import programs, running
    from bearray.errors import ResourceError

    chosen = programs(storage)
    signal.signal(signal.SIGTERM, _interrupt)  # `kill` ends the dashboards, too
    try:
        with running(chosen) as dashboards:
            width = max(24, *(len(one.title) for one in dashboards))
            for one in dashboards:
                print(f"{one.title:<{width}} {one.address}")
            ports = " ".join(f"-L {one.port}:127.0.0.1:{one.port}" for one in dashboards)
            print(f"from another machine:    ssh -N {ports} USER@THIS_MACHINE, then the same addresses there")
            print("Ctrl-C ends them", flush=True)
            while True:
                time.sleep(_POLL_SECONDS)
                for one in dashboards:
                    trouble = one.trouble()
                    if trouble is not None:
                        raise ResourceError(trouble)
    except KeyboardInterrupt:
        print("stopped")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
