"""What has not been measured, each assumption with its value in one place.

docs/scale.md and `bearray plan` print them; change a value and see what hangs on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def _assume(value: float, form: str, text: str) -> float:
    """A field of `Assumed`: its value, how it is printed, what it is."""
    default: float = field(default=value, metadata={"form": form, "text": text})
    return default


@dataclass(frozen=True)
class Assumed:
    """Of time. Times of computing are inversely proportional to the first two."""

    training_utilisation: float = _assume(
        0.40, "{:.0%}", "share of the peak rate that a training step reaches"
    )
    decoding_utilisation: float = _assume(0.25, "{:.0%}", "share of the peak rate that decoding reaches")
    step_seconds: float = _assume(
        0.05, "{:.2f} s", "fixed time of a training step: launches, optimiser, waiting for the slowest worker"
    )
    network_gb: float = _assume(10.0, "{:.0f} GB/s", "rate at which gradients are summed over nodes")
    start_seconds: float = _assume(
        60.0, "{:.0f} s", "until an actor has loaded model and trie, once an evaluation"
    )


@dataclass(frozen=True)
class AssumedRoom:
    """Of a card's memory."""

    context_gb: float = _assume(1.0, "{:.1f} GB", "what CUDA, its libraries and NCCL take")
    usable: float = _assume(
        0.92, "{:.0%}", "share of the rest that tensors can fill before memory is too fragmented"
    )


@dataclass(frozen=True)
class Range:
    """How far a time may be off: its low end and its high end are the time times these."""

    low: float
    high: float


ASSUMED = Assumed()
ROOM = AssumedRoom()

RANGES = {
    "measured": Range(0.9, 1.15),
    "measured elsewhere": Range(0.7, 1.6),
    "computed": Range(0.7, 2.0),
}
"""By basis. Measured: the same model on the same kind of device. Measured elsewhere: by speed of another
model, objective, device or number of workers, converted by work. Computed: utilisation between 20% and 57%
of the peak rate instead of 40%."""
