"""The command line: `bearray GROUP COMMAND ...`. Each command is a typed function in `bearray.commands`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bearray.errors import BearrayError

COMMANDS: dict[str, tuple[str, str]] = {
    "data prepare": ("bearray.commands.data:prepare", "turn dumps, CSV folders or tables into a data set"),
    "data fetch": ("bearray.commands.data:fetch", "download a published data set"),
    "data check": ("bearray.commands.data:check", "check a prepared data set"),
    "data stats": ("bearray.commands.data:stats", "numbers to know about a data set"),
    "data demo": ("bearray.commands.data:demo", "make the demo catalogue"),
    "base-model build": (
        "bearray.commands.base_model:build",
        "train a small stand-in for a pre-trained model on a training split",
    ),
    "baseline sasrec": (
        "bearray.commands.baseline:sasrec",
        "train and test SASRec, which knows items by number only",
    ),
    "baseline bert4rec": (
        "bearray.commands.baseline:bert4rec",
        "the same with BERT4Rec, which fills in masked titles",
    ),
    "baseline dros": ("bearray.commands.baseline:dros", "the same with DROS, SASRec with a robust loss"),
    "baseline dllm2rec": (
        "bearray.commands.baseline:dllm2rec",
        "the same with DLLM2Rec, which learns an LLM's lists",
    ),
    "baseline llm-cf": (
        "bearray.commands.baseline:llm_cf",
        "the same with LLM-CF, which reads an LLM's chains of thought",
    ),
    "plan": ("bearray.commands.plan:plan", "what fits on given GPUs, and what a sweep will cost"),
    "sweep": ("bearray.commands.sweep:sweep", "search lambda and xi on a data set of your own, test, report"),
    "jobs status": ("bearray.commands.jobs:status", "how far a sweep on a cluster is, and what it waits for"),
    "jobs logs": ("bearray.commands.jobs:logs", "follow a job's log through lost connections"),
    "jobs fetch": ("bearray.commands.jobs:fetch", "bring a sweep's results from a cluster here"),
    "dashboard": ("bearray.commands.dashboard:dashboard", "TensorBoard and optuna-dashboard on a sweep"),
    "report": ("bearray.commands.report:report", "write the report of a storage folder"),
    "leaderboard": ("bearray.commands.leaderboard:leaderboard", "all runs of all storages in one table"),
    "compare": ("bearray.commands.compare:compare", "compare runs: paired differences, where, for whom"),
    "pruning": ("bearray.commands.pruning:pruning", "measure what beam search loses on trained runs"),
    "paper": ("bearray.commands.paper:paper", "every table and figure of the BEAR paper, ours beside it"),
    "bench objectives": (
        "bearray.commands.bench:objectives",
        "time objectives and decoders in interleaved rounds",
    ),
    "recommend": (
        "bearray.commands.recommend:recommend",
        "what a trained model recommends, with scores, pruning margins and proof",
    ),
    "export": ("bearray.commands.export:export", "one folder to serve or give away, with a model card"),
    "serve": ("bearray.commands.serve:serve", "the same recommendations over HTTP"),
    "doctor": ("bearray.commands.doctor:doctor", "check this machine, and say how to mend what is wrong"),
    "objectives": ("bearray.commands.listing:objectives", "the losses there are, and what each needs"),
    "decoders": ("bearray.commands.listing:decoders", "the decoders there are, and what each needs"),
}
"""Command -> (module:function, one line of help). A function is imported when it is called."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "Begin": ("doctor", "data", "base-model", "plan"),
    "Train and test": ("sweep", "baseline", "paper", "bench"),
    "On a cluster": ("jobs",),
    "Look at results": ("dashboard", "report", "leaderboard", "compare", "pruning"),
    "Use a trained model": ("recommend", "export", "serve"),
    "Look up": ("objectives", "decoders"),
}
"""Heading -> first words of the commands under it, in the order in which a newcomer meets them."""


def usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = []
    for heading, names in _sections().items():
        lines += ["", f"{heading}:"]
        lines += [f"  bearray {name:<{width}}{COMMANDS[name][1]}" for name in names]
    return "\n".join(
        [
            "usage: bearray COMMAND [OPTIONS]",
            "",
            "Fine-tune LLM recommenders so that beam search keeps the right titles, on a laptop or a Ray",
            "cluster; search, test, compare and use them. New here? Begin with bearray doctor.",
            *lines,
            "",
            "bearray COMMAND --help explains a command; bearray --version prints the version.",
            "Exit codes: 0 done; 1 doctor found what would stop a run, or the job asked about failed; 2 a",
            "mistake, and the message says how to mend it; 130 interrupted.",
        ]
    )


def _sections() -> dict[str, list[str]]:
    """Heading -> commands; those that no heading names come last."""
    found = {
        heading: [name for word in words for name in COMMANDS if name.split()[0] == word]
        for heading, words in SECTIONS.items()
    }
    placed = {name for names in found.values() for name in names}
    rest = [name for name in COMMANDS if name not in placed]
    return {**found, "More": rest} if rest else found


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `bearray` command; exits with 2 and one message for what a user can mend, else with
    what the command returns."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """`main` as a function: the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from bearray import __version__

        print(f"bearray {__version__}")
        return 0
    name = next((n for n in (" ".join(arguments[:2]), arguments[0]) if n in COMMANDS), None)
    if name is None:
        return _unknown(arguments)
    try:
        return _call(name, list(arguments[len(name.split()) :]))
    except BearrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _unknown(arguments: Sequence[str]) -> int:
    group = [n for n in COMMANDS if n.startswith(f"{arguments[0]} ")]
    if group and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print("\n".join(f"bearray {n}: {COMMANDS[n][1]}" for n in group))
        return 0 if len(arguments) > 1 else 2
    print(f"error: there is no command {' '.join(arguments[:2])!r}\n\n{usage()}", file=sys.stderr)
    return 2


def _call(name: str, arguments: list[str]) -> int:
    module, _, function = COMMANDS[name][0].partition(":")
    target: Callable[..., Any] = getattr(importlib.import_module(module), function)
    if name in ("sweep", "paper", "bench objectives"):  # build their own, shared with sweeps/*.py
        return int(target(arguments))
    from bearray.commands.explain import call

    code = call(target, f"bearray {name}", arguments)
    return code if isinstance(code, int) else 0
