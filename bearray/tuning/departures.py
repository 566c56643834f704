"""What a run does differently from the paper, as sentences for the report."""

from __future__ import annotations

from bearray.backbones import base_model_kind
from bearray.config import RunConfig, leaves, to_dict
from bearray.method_names import method_name
from bearray.tuning.config import SearchConfig, SweepConfig

_EXPLAINED = {
    "data.train_windows": "training windows",
    "data.valid_windows": "validation windows (None: all)",
    "data.test_windows": "test windows at most",
    "model.lora_r": "LoRA rank",
    "model.lora_alpha": "LoRA alpha",
    "model.lora_dropout": "LoRA dropout",
    "model.lora_targets": "layers with an adapter",
    "model.max_prompt_tokens": "prompt tokens at most, the oldest titles cut",
    "objective.form": "form of BEAR",
    "objective.vocabulary": "vocabulary of the softmax in MSL and BEAR",
    "objective.beam_width": "B in the objective",
    "objective.tau": "softmax temperature",
    "train.epochs": "epochs",
    "train.batch_size": "windows in a step",
    "train.lr": "learning rate",
    "train.weight_decay": "weight decay",
    "train.warmup_steps": "warm-up steps",
    "train.schedule": "learning rate schedule",
    "decoding.method": "decoder",
    "decoding.exclude_history": "titles of the history left out",
    "decoding.beam_width": "beam width",
    "decoding.normalize": "normaliser of the search",
    "decoding.length_penalty": "length penalty",
}

ALWAYS = (
    "HTML entities in titles are turned into characters (data.unescape), and one prompt text serves training "
    "and test; the published code keeps the entities and has one space more in the prompt at test time.",
    "Checkpoints are chosen by validation NDCG@10, as the paper says; the published code takes the best "
    "test score over epochs.",
    "Beams are ranked by overall probability (length penalty 0), as the paper says; the published code "
    "divides by the length.",
    "Base weights are not quantised; the published code trains over 8-bit ones.",
)
"""Departures from the published code that hold whatever the settings."""


def departures(sweep: SweepConfig) -> list[str]:
    """Every setting of a sweep that is not the paper's, then what always differs from the published code."""
    ours, paper = leaves(to_dict(sweep.run)), leaves(to_dict(RunConfig()))
    lines = [
        f"{label} ({name}): {ours[name]} instead of {paper[name]}"
        for name, label in _EXPLAINED.items()
        if ours[name] != paper[name]
    ]
    for base in sweep.base_model:
        if base_model_kind(base) == "local stand-in":
            lines.append(
                f"base model {base}: a small Llama trained for minutes on the training split's titles and "
                "histories, a stand-in for a pre-trained Llama-3.2-3B; absolute numbers cannot be compared"
            )
        elif base.lower() != "llama-3.2-3b":
            lines.append(f"base model {base} instead of Llama-3.2-3B")
    search = SearchConfig()
    for name in ("lam", "xi"):
        if getattr(sweep.search, name) != getattr(search, name):
            lines.append(f"range of {name}: {getattr(sweep.search, name)} instead of {getattr(search, name)}")
    if sweep.searched:
        lines.append(
            f"search: {sweep.search.trials} trials of Optuna's TPE; the paper states no search budget"
        )
        searched, single = (
            ", ".join(method_name(m.upper()) for m in sweep.objectives if (m in sweep.searched) == which)
            for which in (True, False)
        )
        if single:
            lines.append(
                f"{searched}: the best of these trials by validation; {single}: one setting each, without "
                "what a search would have gained them (search.space)"
            )
    started = [method_name(m.upper()) for m in sweep.objectives if sweep.starts_from_sft(m)]
    if started:
        lines.append(
            f"{', '.join(started)} start from the best checkpoint of the SFT run, which is also their frozen "
            "reference; SFT's epochs come on top of their own"
        )
    if len(sweep.all_seeds) > 1:
        lines.append(f"seeds {', '.join(map(str, sweep.all_seeds))}; the paper does not say how many it has")
    lines += [f"settings of some methods only: {text}" for text in sweep.method_settings]
    return lines + list(ALWAYS)
