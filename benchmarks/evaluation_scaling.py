"""Sharded evaluation with one Ray Data actor and with two: how much faster is it once both are at work?

    python benchmarks/evaluation_scaling.py            # about ten minutes of two quiet cores
    python benchmarks/evaluation_scaling.py --quick    # two rounds of few users; prints, writes nothing

Setting: the demo catalogue, a Llama of 8 layers and width 512 with hardly trained weights, beam search of
width 10 over the trie, actors of one CPU (and one thread) each, shards of 8 users: what `evaluate_run` does,
by its own code. Rounds alternate between the two numbers of actors, so that drift hits both alike.

Steady speed counts the shards from when every actor has ended its second one to where one runs out of work.
Start-up (processes, imports, catalogue, model) is what passes before the first shard ends, less the time that
its decoding took; it is reported apart. Efficiency is the steady speed of two over twice that of one in the
same round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from bearray.backbones.pretrain import BaseSize
from bearray.backbones.tiny import build_base_model
from bearray.config import RunConfig, override
from bearray.data import open_dataset
from bearray.data.demo import make_demo
from bearray.efficiency.machine import load_average, machine_facts
from bearray.efficiency.statistics import Interval, median_interval
from bearray.evaluation.evaluate import decode_split
from bearray.runs import Storage

ACTORS = (1, 2)
GOAL = 0.85
SHARD = 8
WARM = 2
"""Shards of each actor that come before the measured ones."""
SIZE = BaseSize(
    name="scaling", hidden=512, layers=8, heads=8, kv_heads=4, intermediate=1536, vocab_size=4_000,
    context=256, batch_blocks=2, max_steps=2, lr=1e-3,
)  # fmt: skip


def prepare(folder: Path, shards: int) -> RunConfig:
    """Data and model, and the run whose test split is decoded."""
    data = folder / "demo"
    make_demo(data, seed=0, items=2_000, users=4_000)
    base = build_base_model(open_dataset(data), SIZE, cache_dir=folder / "base", progress=False)
    return override(
        RunConfig(),
        {
            "data.path": str(data),
            "data.test_windows": shards * SHARD,
            "model.base": str(base),
            "evaluation.shard_size": SHARD,
            "evaluation.device": "cpu",
            "decoding.batch_size": SHARD,
        },
    )


def once(config: RunConfig, actors: int, folder: Path) -> dict[str, float]:
    """One evaluation from its start: seconds before the first shard, and users a second when steady."""
    ends: list[float] = []
    began = time.perf_counter()
    frames = decode_split(
        override(config, {"evaluation.actors": actors}),
        None,
        {"trie": Storage(str(folder))},
        on_shard=lambda done, total: ends.append(time.perf_counter()),
    )
    shards, decoding = len(ends), frames["trie"].attrs["seconds"]
    first, last = WARM * actors - 1, shards - actors
    assert len(frames["trie"]) == shards * SHARD and last > first
    return {
        "startup": ends[0] - began - decoding / shards,
        "users_per_second": (last - first) * SHARD / (ends[last] - ends[first]),
        "seconds": ends[-1] - began,
        "seconds_per_shard": decoding / shards,
    }


def measure(rounds: int, shards: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as parent:
        config = prepare(Path(parent), shards)
        # One CPU more than actors: reading the list of shards does not wait for them.
        ray.init(address="local", num_cpus=max(ACTORS) + 1, log_to_driver=False, logging_level="ERROR")
        turns: list[dict[str, dict[str, float]]] = []
        for number in range(rounds):
            order = ACTORS if number % 2 == 0 else ACTORS[::-1]
            turn = {str(n): once(config, n, Path(parent) / f"{number}-{n}") for n in order}
            turns.append(turn)
            print(f"round {number + 1}/{rounds}: efficiency {efficiency(turn):.3f}", flush=True)
        ray.shutdown()
    return {
        "rounds": turns,
        "users": shards * SHARD,
        "shard_size": SHARD,
        "goal": GOAL,
        "machine": machine_facts(torch.device("cpu")) | {"load": load_average()},
    }


def efficiency(turn: dict[str, dict[str, float]]) -> float:
    """Of a round: the steady speed of two actors over twice that of one."""
    return turn["2"]["users_per_second"] / (2 * turn["1"]["users_per_second"])


def as_markdown(result: dict[str, Any]) -> str:
    turns = result["rounds"]
    machine = result["machine"]

    def words(interval: Interval, digits: int) -> str:
        return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"

    def of(actors: int, what: str, per: float = 1.0) -> Interval:
        return median_interval([turn[str(actors)][what] / per for turn in turns])

    whole = median_interval([efficiency(turn) for turn in turns])
    lines = [
        f"Evaluation with 1 and 2 Ray Data actors of one CPU: {result['users']} users in shards of "
        f"{result['shard_size']}, a Llama of 8 layers and width 512, beam width 10, {len(turns)} rounds. "
        f"Medians over rounds, with intervals of {whole.coverage:.0%}. {machine['cores']} cores, load "
        f"average {machine['load']} at the end.",
        "",
        "| actors | users/s, steady | users/s of an actor | s before the first shard | s of a shard |",
        "|---:|---:|---:|---:|---:|",
    ]
    for n in ACTORS:
        lines.append(
            f"| {n} | {words(of(n, 'users_per_second'), 2)} | {words(of(n, 'users_per_second', n), 2)} "
            f"| {words(of(n, 'startup'), 1)} | {words(of(n, 'seconds_per_shard'), 2)} |"
        )
    shorter = median(turn["2"]["seconds"] / turn["1"]["seconds"] for turn in turns)
    met = "met" if whole.value >= result["goal"] else "NOT met"
    lines += [
        "",
        f"Efficiency of 2 actors: {words(whole, 3)}; the goal of {result['goal']} is {met} by the median. "
        f"Start-up included, two actors took {shorter:.2f} of the time of one.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of few users; prints, writes nothing"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rounds, shards = (2, 8) if options.quick else (options.rounds, options.shards)
    result = measure(rounds, shards)
    print(as_markdown(result))
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation-scaling-cpu.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "evaluation-scaling-cpu.md").write_text(as_markdown(result))


if __name__ == "__main__":
    main()
