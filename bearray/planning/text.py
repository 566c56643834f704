"""Plans in words, tables and plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from bearray.planning.assumed import ASSUMED, ROOM
from bearray.planning.choose import STAGES, Option, card_gb
from bearray.planning.estimate import Time
from bearray.planning.memory import Memory
from bearray.planning.objectives import factor
from bearray.planning.plan import Plan

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, header, rows."""

PARTS = {
    "weights": "base model",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "activations": "activations",
    "trie": "trie",
}


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    for size, unit in ((86_400 * 3, "days"), (3_600 * 2, "h"), (120, "min")):
        if seconds >= size:
            value = seconds / {"days": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s"


def gigabytes(number: float) -> str:
    value = number / 1e9
    return f"{value:,.1f} GB" if value >= 0.1 else f"{1_000 * value:,.1f} MB"


def spread(time: Time) -> str:
    """A time with its range."""
    return f"{duration(time.seconds)} ({duration(time.low)} to {duration(time.high)})"


def hours(time: Time) -> str:
    """Device hours with their range; `Time` holds hours here."""
    form = "{:,.0f}" if time.seconds >= 10 else "{:.2f}"
    return f"{form.format(time.seconds)} ({form.format(time.low)} to {form.format(time.high)})"


def headline(plan: Plan) -> str:
    """What was planned for, in a sentence."""
    r = plan.request
    where = f"{r.devices} x {r.device.name} ({r.device.memory / 1e9:.0f} GB)"
    where += f" on {r.nodes} nodes" if r.nodes > 1 else ""
    return (
        f"{plan.shape.name} ({plan.shape.weights / 1e9:.2f} billion weights) on {where}: "
        f"{', '.join(r.methods)}; {r.work.train_windows:,} windows an epoch, {r.run.train.epochs} epochs, "
        f"batches of {r.run.train.batch_size}"
    )


def flags(plan: Plan) -> str:
    """The settings to pass to a sweep."""
    assert plan.chosen is not None
    option, found = plan.chosen, []
    found.append(f"--train.num-workers {option.workers}")
    found.append(f"--train.zero-stage {option.zero_stage}")
    found.append(f"--train.micro-batch-size {option.micro_batch}")
    if option.checkpointing:
        found.append("--train.gradient-checkpointing")
    if not plan.request.device.bf16:
        found.append("--model.dtype float32")
    return " ".join(found)


def fit_table(plan: Plan) -> Table:
    """For each stage, with and without checkpointing, the largest micro-batch that fits."""
    rows = []
    stages = [s for s in sorted(STAGES) if any(o.zero_stage == s for o in plan.options)]
    for stage in stages:
        for recompute in (False, True):
            own = [o for o in plan.options if (o.zero_stage, o.checkpointing) == (stage, recompute)]
            if not own:
                continue
            fitting = [o for o in own if o.fits]
            best = max(fitting, key=lambda o: o.micro_batch) if fitting else min(own, key=lambda o: o.needed)
            rows.append(_fit_row(plan, best))
    header = ("ZeRO", "checkpointing", "micro-batch", *PARTS.values(), "in all", "of", "")
    where = f"{plan.options[0].workers} GPU{'s' * (plan.options[0].workers > 1)} a run"
    return f"What fits, {where}: the largest micro-batch of each, and its memory on each GPU", header, rows


def _fit_row(plan: Plan, option: Option) -> tuple[str, ...]:
    memory = option.memory
    verdict = "does not fit"
    if option.fits:
        verdict = "chosen" if option is plan.chosen else "fits"
    elif option.starting > option.room:
        verdict = f"does not fit: {gigabytes(option.starting)} while it starts"
    return (
        str(option.zero_stage),
        "yes" if option.checkpointing else "no",
        str(option.micro_batch),
        *(gigabytes(getattr(memory, name)) for name in PARTS),
        gigabytes(memory.total),
        gigabytes(option.room),
        verdict,
    )


def cost_table(plan: Plan) -> Table:
    """What each method's runs take."""
    assert plan.sweep is not None
    rows = []
    for method in plan.sweep.methods:
        run = method.run
        rows.append(
            (
                method.name,
                spread(run.epoch),
                duration(run.validation.seconds),
                duration(run.training.seconds),
                duration(run.test.seconds),
                f"{method.runs}{' trials and seeds' if method.searched else ''}",
                hours(method.device_hours),
                f"{factor(method.name).value:.2f}",
                run.epoch.basis,
            )
        )
    header = ["method", "an epoch", "a validation", "a run", "a test", "runs"]
    header += ["GPU hours of all", "x SFT", "epoch is"]
    return "What it costs (in brackets: the range that it should be in)", header, rows


def sum_up(plan: Plan) -> list[str]:
    """The sweep in sentences."""
    sweep, request = plan.sweep, plan.request
    assert sweep is not None and plan.chosen is not None
    lines = [
        f"A sweep of {sum(m.runs for m in sweep.methods)} runs, {sweep.at_a_time} at a time: "
        f"{spread(sweep.wall)}; "
        f"{hours(sweep.held_hours)} GPU hours if all {sweep.devices} are held meanwhile, "
        f"{hours(sweep.busy_hours)} of them at work."
    ]
    if request.price is not None:
        held = sweep.held_hours.times(request.price)
        lines.append(
            f"At {request.price:g} a GPU hour: {held.seconds:,.2f} ({held.low:,.2f} to {held.high:,.2f})."
        )
    d = plan.decoding
    fitting = f"{d.users} users at a time" if d.users else "not even one user at a time"
    lines.append(
        f"Evaluation on each GPU: {gigabytes(d.weights)} of weights, {gigabytes(d.user)} a user, {fitting}; "
        "the decoder finds its batch by itself."
    )
    return lines


def notes(plan: Plan) -> list[str]:
    """What the numbers rest on."""
    r = plan.request
    found = [
        f"Windows: {r.work.prompt_tokens:.0f} tokens of prompt on average, {r.work.longest_prompt} at "
        "most, the first "
        f"{r.work.shared_tokens:.0f} shared; answers {r.work.answer_tokens:.1f}, {r.work.longest_answer} "
        "at most; "
        f"from {r.work.source}.",
        f"Memory is computed, for the longest windows and the most demanding of the methods; of each GPU "
        f"{ROOM.context_gb:g} GB are left to CUDA and {1 - ROOM.usable:.0%} of the rest to fragmentation.",
    ]
    computed = plan.sweep is not None and any(m.run.total.basis == "computed" for m in plan.sweep.methods)
    if computed or plan.sweep is None:
        found.append(
            f"Computed times assume {ASSUMED.training_utilisation:.0%} of the data sheet's "
            f"{r.device.peak / 1e12:,.0f} TFLOP/s in training and {ASSUMED.decoding_utilisation:.0%} in "
            "decoding, and "
            f"{ASSUMED.start_seconds:.0f} s until an evaluation has started; --measured RUN replaces them."
        )
    seen = dict.fromkeys(note for m in plan.sweep.methods for note in m.run.notes) if plan.sweep else {}
    found += [f"{note[0].upper()}{note[1:]}." for note in seen]
    if not r.device.bf16:
        found.append(f"{r.device.name} has no bfloat16: float32 is planned for, twice the memory.")
    if r.device.is_gpu and plan.chosen is not None:
        host = plan.shape.weights * r.device.element * min(r.gpus, r.devices)
        found.append(
            f"Workers load the model through the node's own memory: {gigabytes(host)} for all at once."
        )
    return found


def helps(plan: Plan) -> list[str]:
    """What to change where the sweep's own settings, or everything, do not fit."""
    if plan.chosen is None:
        least = min(plan.options, key=lambda o: o.needed)
        lines = [
            f"Nothing fits: the least, {_option_words(least)}, needs a GPU of {card_gb(least):.0f} GB "
            f"({_most(least.memory)})."
        ]
        return lines + [f"It would fit with {line}." for line in plan.advice]
    if plan.defaults.fits:
        return []
    return [
        f"The settings of the run itself, {_option_words(plan.defaults)}, do not fit: they need a GPU of "
        f"{card_gb(plan.defaults):.0f} GB. They would with {'; or '.join(plan.advice)}."
    ]


def _option_words(option: Option) -> str:
    recompute = "with" if option.checkpointing else "without"
    return (
        f"ZeRO stage {option.zero_stage}, micro-batches of {option.micro_batch} {recompute} checkpointing on "
        f"{option.workers} GPU{'s' * (option.workers > 1)}"
    )


def _most(memory: Memory) -> str:
    name = max(PARTS, key=lambda part: getattr(memory, part))
    return f"most of it is the {PARTS[name]}, {gigabytes(getattr(memory, name))}"


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values: bytes, seconds and hours."""
    r = plan.request
    return {
        "model": {**asdict(plan.shape), "weights": plan.shape.weights},
        "device": asdict(r.device),
        "gpus": r.gpus,
        "nodes": r.nodes,
        "work": {**asdict(r.work), "decoding_over_prefill": dict(r.work.decoding_over_prefill)},
        "chosen": None if plan.chosen is None else _option_json(plan.chosen),
        "flags": None if plan.chosen is None else flags(plan),
        "defaults": _option_json(plan.defaults),
        "advice": list(plan.advice),
        "options": [_option_json(option) for option in plan.options],
        "decoding": {**asdict(plan.decoding), "total": plan.decoding.total},
        "sweep": None if plan.sweep is None else _sweep_json(plan),
        "notes": notes(plan),
    }


def _option_json(option: Option) -> dict[str, Any]:
    return {
        **{f.name: getattr(option, f.name) for f in fields(option) if f.name != "memory"},
        "memory": {**asdict(option.memory), "total": option.memory.total},
        "fits": option.fits,
        "gpu_gb_needed": card_gb(option),
    }


def _sweep_json(plan: Plan) -> dict[str, Any]:
    sweep, price = plan.sweep, plan.request.price
    assert sweep is not None
    return {
        "at_a_time": sweep.at_a_time,
        "wall_seconds": asdict(sweep.wall),
        "gpu_hours_held": asdict(sweep.held_hours),
        "gpu_hours_busy": asdict(sweep.busy_hours),
        "price": None if price is None else asdict(sweep.held_hours.times(price)),
        "methods": {
            m.name: {
                "runs": m.runs,
                "tested": m.tested,
                "epoch_seconds": asdict(m.run.epoch),
                "validation_seconds": asdict(m.run.validation),
                "training_seconds": asdict(m.run.training),
                "test_seconds": asdict(m.run.test),
                "gpu_hours": asdict(m.device_hours),
                "times_sft": asdict(factor(m.name)),
            }
            for m in sweep.methods
        },
    }
