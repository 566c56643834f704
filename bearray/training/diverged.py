"""That a loss is no longer a finite number: the error, and what diverged.json says, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from bearray.errors import BearrayError

REPORT = "diverged.json"
NAMED = 10
"""At most so many users, or weights, are named in a message; the report has all."""

What = Literal["loss", "gradient", "rollouts", "samples", "negatives"]
"""The loss itself, its gradient only, or the answers beside the targets, which the model is to find: beams of
its own, sampled titles, its own best wrong titles."""

_ADVICE = {
    "weights": "start from another adapter (train.init_adapter)",
    "reference": "start from another adapter (train.init_adapter)",
    "regularizer": "lower objective.lam or raise objective.xi",
    **dict.fromkeys(("thresholds", "rollouts", "samples", "negatives"), "lower train.lr"),
    "user_scores": "look at the scores of the text-free model",
}
_OTHERWISE = "lower train.lr or objective.lam, or set train.max_grad_norm"


class DivergedError(BearrayError, ArithmeticError):
    """The loss or its gradient is no longer a finite number; nothing was updated with it.

    Attributes:
        report: what diverged.json holds; see `describe`.
    """

    def __init__(self, message: str, report: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report or {}

    @classmethod
    def of(cls, report: dict[str, Any]) -> DivergedError:
        return cls(describe(report), report)


def describe(report: dict[str, Any]) -> str:
    """The message of a `DivergedError`, in one line."""
    r = report
    verdict = {"loss": f"is {r['value']}", "gradient": "is not finite"}.get(
        r["what"], "cannot be made, because the model's scores are NaN,"
    )
    users = list(dict.fromkeys(w["user"] for w in r["windows"]))
    where = f" in the windows of users {_some(users)}" if users else ""
    batch = "" if users else f"; the batch has users {_some(list(dict.fromkeys(r['batch']['users'])))}"
    weights = f" (of {_some(r['weights'])})" if r["weights"] else ""
    saved = f"; the state before it is saved in {r['saved']}" if r["saved"] else ""
    return (
        f"the {r['what']} of {r['objective']!r} {verdict} at step {r['step']} (epoch {r['epoch']:.2f}), "
        f"learning rate {r['lr']:.2g}; the first part that is not finite is {r['term']}{weights}{where}"
        f"{batch}; nothing was updated with it{saved}; {_ADVICE.get(r['term'], _OTHERWISE)}"
    )


def write_report(folder: Path, report: dict[str, Any]) -> None:
    (folder / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")


def _some(values: list[Any]) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(str(v) for v in values[:NAMED]) + more
