"""A benchmark of objectives and decoders from its checks to its tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bearray.efficiency.config import EfficiencyConfig

if TYPE_CHECKING:
    from bearray.efficiency.benchmark import Benchmark
    from bearray.efficiency.results import Record
    from bearray.runs import Storage

POLL_SECONDS = 2.0


def run_benchmark(config: EfficiencyConfig) -> str:
    """Measure what is missing, and write the tables and figures.

    Returns:
        STORAGE/efficiency.

    Raises:
        BearrayError: a setting, the data, the storage or the cluster cannot work; found before anything is
            measured. Also when measuring failed; the rounds that ended are kept.
        BusyError: another process is at work on the storage.
    """
    from bearray.efficiency.benchmark import check
    from bearray.lock import held
    from bearray.runs import Storage

    benchmark = check(config)
    with held(Storage(config.storage), "benchmark"):
        return _measure(config, benchmark)


def _measure(config: EfficiencyConfig, benchmark: Benchmark) -> str:
    from bearray.efficiency.benchmark import measure_locally, prepare
    from bearray.efficiency.results import gather
    from bearray.report.efficiency_write import write_efficiency
    from bearray.tuning.watch import say

    began = time.monotonic()
    if not config.local:
        from bearray.efficiency.workers import check_cluster
        from bearray.tuning.cluster import connect

        connect()
        check_cluster(config.run)
    measured, plans = prepare(benchmark, say)
    finished = False
    try:
        with _progress(benchmark.folder, plans):
            if config.local:
                measure_locally(plans)
            else:
                _measure_on_ray(measured, plans)
        finished = True
    finally:
        gather(benchmark.folder, finished=finished)
    found, where = write_efficiency(config.storage)
    _print(found)
    minutes = (time.monotonic() - began) / 60
    say(f"finished in {minutes:.1f} minutes; tables and figures: ", (str(where), "bold"))
    return where


def _measure_on_ray(measured: Any, plans: dict[str, Record]) -> None:
    from bearray.efficiency.parts import DECODING, TRAINING
    from bearray.efficiency.workers import decode_on_ray, train_on_ray

    if TRAINING in plans:
        train_on_ray(measured, plans[TRAINING])
    if DECODING in plans:
        decode_on_ray(measured, plans[DECODING])


@contextmanager
def _progress(folder: Storage, plans: dict[str, Record]) -> Iterator[None]:
    """While it lasts, say which rounds have ended, wherever they are measured: read from the storage."""
    from bearray.efficiency.results import PartFolder
    from bearray.tuning.watch import polling, say

    def count(part: str) -> int:
        rounds: int = plans[part]["rounds"]
        return rounds - len(PartFolder(folder, part).missing(rounds))

    done = {part: count(part) for part in plans}
    for part, plan in plans.items():
        labels = ", ".join(plan["contenders"])
        say(f"{part}: {plan['rounds'] - done[part]} of {plan['rounds']} rounds to measure: {labels}")

    def look() -> None:
        for part, plan in plans.items():
            there = count(part)
            if there > done[part]:
                done[part] = there
                say(f"{part}: round {there}/{plan['rounds']}")

    with polling(look, POLL_SECONDS):
        yield


def _print(found: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from bearray.report.efficiency_text import parts, subject
    from bearray.terminal import terminal
    from bearray.tuning.watch import console

    console.print()
    console.print(Text(subject(found), style="bold"))
    for _, (header, lines) in parts(found):
        table = Table(box=None, pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left")
        for line in lines:
            table.add_row(*map(Text, line))
        # A log has no width, and numbers are not to be broken over lines.
        terminal(width=max(console.width, 170)).print(table)
    for line in (*found.facts, *found.notes):
        console.print(Text(line, style="dim"))
