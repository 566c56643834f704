"""The model card of an export: what it is, how good, from what, what it may not be used for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bearray.config import RunConfig, leaves, to_dict

LICENCES = {
    "meta-llama/llama-3.2-1b": ("llama3.2", "Llama 3.2 Community License (Meta)"),
    "meta-llama/llama-3.2-3b": ("llama3.2", "Llama 3.2 Community License (Meta)"),
    "meta-llama/meta-llama-3-8b": ("llama3", "Meta Llama 3 Community License (Meta)"),
    "llama-3.2-1b": ("llama3.2", "Llama 3.2 Community License (Meta)"),
    "llama-3.2-3b": ("llama3.2", "Llama 3.2 Community License (Meta)"),
    "llama-3-8b": ("llama3", "Meta Llama 3 Community License (Meta)"),
}
"""Base model, in small letters -> the hub's name of its licence, and ours. Others' are unknown here."""

_WORDS = {
    "trie": "beam search, softmax over the valid next tokens (`trie`)",
    "full": "beam search, softmax over the whole vocabulary (`full`)",
    "exact": "exact search",
    "trie_lp1": "beam search with length penalty 1, softmax over the valid next tokens (`trie`)",
    "full_lp1": "beam search with length penalty 1, softmax over the whole vocabulary (`full`)",
}
"""Ways in which a test is decoded; one that is not here is called as its run calls it."""


def model_card(about: Mapping[str, Any]) -> str:
    """README.md from the content of bearray.json."""
    parts = [_front(about), _what(about), _figures(about), _settings(about), _use(about), _origin(about)]
    return "\n\n".join(parts) + "\n"


def _front(about: Mapping[str, Any]) -> str:
    """What model hubs read: YAML, of which JSON values are a part."""
    licence = LICENCES.get(str(about["base_model"]).lower())
    lines = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["recommender-system", "bearray", str(about["settings"]["objective"]["name"])],
        "license": licence[0] if licence else "unknown",
    }
    if about["base_model_kind"] == "hub":
        lines["base_model"] = str(about["base_model"])
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in lines.items()), "---"])


def _what(about: Mapping[str, Any]) -> str:
    prompt = about["prompt"]
    stand_in = (
        "\n\nThe base model is a small stand-in that was trained on the data set itself: it shows that "
        "things work, and says nothing about a pre-trained model."
        if about["base_model_kind"] == "local stand-in"
        else ""
    )
    return (
        f"# {md(about['method'])} on {md(about['dataset'])}\n\n"
        f"Recommends the next {md(prompt['singular'])} from the titles of the {md(prompt['plural'])} that "
        f"someone has {md(prompt['past'])}: the model writes a title, and beam search keeps to the "
        f"{about['titles']:,} titles of the catalogue in `items.parquet` ({about['items']:,} items). "
        f"It is {md(about['base_model'])}, fine-tuned by bearray with LoRA and the objective "
        f"{md(about['settings']['objective']['name'])}; the adapter is merged into the weights "
        f"({md(about['dtype'])}).{stand_in}"
    )


def _figures(about: Mapping[str, Any]) -> str:
    test = about["result"].get("test") or {}
    if not test:
        return (
            "## Figures\n\nNot tested: this run was not the one chosen for the test. Validation at the best "
            f"epoch ({md(about['result'].get('best_epoch'))}): {_validation(about)}."
        )
    lines = [
        "## Figures",
        "",
        "On the data set's test windows, which are later than its training windows; 95% intervals, bootstrap "
        "over users. Warm: the target occurs in training.",
    ]
    for decoding in [*(name for name in _WORDS if name in test), *sorted(test.keys() - _WORDS.keys())]:
        groups, words = test[decoding], _WORDS.get(decoding, md(decoding))
        shown = [name for name in ("all", "warm", "cold") if (groups.get(name) or {}).get("n")]
        metrics = [name for name in groups.get("all", {}) if "@" in name and name != "ndcg@1"]
        heads = [f"{name} ({groups[name]['n']:,} windows)" for name in shown]
        lines += ["", f"**{words[:1].upper()}{words[1:]}**", ""]
        lines += [_row(["metric", *heads]), _row(["---"] * (1 + len(heads)))]
        for metric in metrics:
            lines.append(_row([md(metric.upper()), *(_interval(groups[name].get(metric)) for name in shown)]))
        if groups.get("proven") is not None:
            lines += ["", f"Lists proven to be the true best ones: {groups['proven']:.1%}."]
    lines += [
        "",
        f"Validation at the best epoch ({md(about['result'].get('best_epoch'))}): {_validation(about)}.",
    ]
    return "\n".join(lines)


_ALWAYS = (
    "objective.name",
    "train.epochs",
    "train.batch_size",
    "train.lr",
    "train.seed",
    "decoding.beam_width",
    "decoding.normalize",
)
_PLACES = ("data.path", "model.base")


def _settings(about: Mapping[str, Any]) -> str:
    """Some settings, and all that are not bearray's defaults."""
    own, default = leaves(about["settings"]), leaves(to_dict(RunConfig()))
    changed = [name for name in own if own[name] != default.get(name) and name not in _PLACES]
    names = list(dict.fromkeys([*_ALWAYS, *changed]))
    lines = [f"- {name}: {md(own[name])}" for name in names if name in own]
    return "\n".join(["## Settings", "", *lines, "- all others are in `bearray.json`"])


def _use(about: Mapping[str, Any]) -> str:
    licence = LICENCES.get(str(about["base_model"]).lower())
    known = f"{licence[1]}; read it before use" if licence else "unknown here; ask where the model came from"
    if about["base_model_kind"] == "local stand-in":
        known = "none of its own (weights trained from scratch on the data set)"
    return (
        "## Use\n\n"
        "```bash\n"
        'bearray recommend --run . --history "first title; second title"\n'
        "bearray serve --run .\n"
        "```\n\n"
        "- Intended use: research on recommender objectives, and recommending from this catalogue.\n"
        "- It knows no other catalogue. Other titles may stand in a history, but are never recommended.\n"
        "- Written freely, without the search over the catalogue, its text is meaningless.\n"
        "- It repeats what its training data prefer: popular titles, and gaps where users or titles are few. "
        "Figures above are of one data set and one seed.\n"
        "- The weights may hold traces of the training histories; items.parquet holds titles only.\n"
        f"- Licence of the base model: {known}. Licence of the data set: that of its source."
    )


def _origin(about: Mapping[str, Any]) -> str:
    trained, exported = about["trained"], about["exported"]
    names = ", ".join(f"{name} {version}" for name, version in (trained.get("versions") or {}).items())
    when, revision = trained.get("created") or "at an unknown time", trained.get("git") or "unknown"
    return (
        "## Origin\n\n"
        f"- run {md(about['run'])}, trained {md(when)}, revision {md(revision)}\n"
        f"- data: {md(about['dataset'])}, content hash {md(about['data_hash'] or 'unknown')}\n"
        f"- versions in training: {md(names) or 'unknown'}\n"
        f"- exported {md(exported['created'])}, revision {md(exported['git'] or 'unknown')}, "
        f"bearray {md(exported['versions'].get('bearray', 'unknown'))}"
    )


def _validation(about: Mapping[str, Any]) -> str:
    valid = about["result"].get("valid") or {}
    named = [f"{md(name.upper())} {value:.4f}" for name, value in valid.items() if isinstance(value, float)]
    return ", ".join(named) or "not recorded"


def _interval(value: Mapping[str, float | None] | None) -> str:
    mean, low, high = ((value or {}).get(name) for name in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return "-"
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def md(text: object) -> str:
    """Text of others that Markdown shows as it is, on one line: no markup, no HTML, nothing invisible."""
    flat = " ".join(str(text).split())
    flat = "".join(sign if sign.isprintable() else "\ufffd" for sign in flat)
    for mark in "\\`*_[]<>|#&~":
        flat = flat.replace(mark, f"\\{mark}")
    return flat.replace("://", ":\\//")  # else many sites make a link of a bare address
