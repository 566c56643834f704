"""D3: SFT's model decoded beside a text-free one, with the alpha that validation chooses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bearray.backbones import base_model_kind
from bearray.config import SASRecConfig
from bearray.errors import ResumeError
from bearray.evaluation.redecode import choose_decoding, redecoded
from bearray.evaluation.shards import MANIFEST
from bearray.paper.config import D3, PaperConfig
from bearray.paper.parts import Part
from bearray.paper.steps.step import Decodings, Step, telling, trained_run
from bearray.paper.stored import DECODED
from bearray.paper.sweeps import part_storage
from bearray.runs import Storage
from bearray.trained import RESULT
from bearray.tuning.cluster import connect


def d3_step(config: PaperConfig, part: Part) -> Step:
    storage = part_storage(config, part).child(DECODED)
    valid = storage.child("valid")

    def place(seed: int) -> Storage:
        return storage.child(f"{D3}-{seed}")

    def missing() -> list[int]:
        return [seed for seed in config.seeds if not place(seed).exists(RESULT)]

    def decodes() -> Decodings:
        left = missing()
        chosen_from = len(config.d3_alpha) if config.seeds[0] in left else 1  # by the first seed's model
        return Decodings(valid=len(left) + chosen_from - 1, test=len(left))

    def do() -> None:
        connect()
        own: dict[str, Any] = {"decoding.method": D3, "decoding.d3_scores": config.d3_scores}
        if (epochs := _epochs(config)) is not None:
            own["decoding.d3_sasrec_epochs"] = epochs
        options = [{**own, "decoding.d3_alpha": alpha} for alpha in config.d3_alpha]
        first = trained_run(config, part, "sft", config.seeds[0])
        changes = choose_decoding(first, options, valid, on_shard=telling(f"{D3} of {first.name}"))
        kind = base_model_kind(part.base)
        for seed in config.seeds:
            run = trained_run(config, part, "sft", seed)
            on_shard = telling(f"{D3} of {run.name}")
            redecoded(run, changes, place(seed), valid=valid, method=D3.upper(), kind=kind, on_shard=on_shard)

    def check() -> None:
        # what was tried on validation, whether or not it was chosen
        tried = [d for d in _decodings(valid) if d["method"] == D3]
        there = {(d["d3_alpha"], _model(d["d3_scores"], d.get("d3_sasrec_epochs"))) for d in tried}
        asked = [(alpha, _model(config.d3_scores, _epochs(config))) for alpha in config.d3_alpha]
        ended = place(config.seeds[0]).exists(RESULT)
        if there - {*asked} or (ended and len(asked) > 1 and {*asked} - there):
            raise ResumeError(
                f"{storage.root} was decoded with {_words(sorted(there))}, and is asked for with "
                f"{_words(asked)}; repeat the earlier --d3-alpha, --d3-scores and --d3-sasrec-epochs, or "
                "choose another --storage"
            )

    return Step(
        title="decode SFT's model with D3",
        part=part,
        runs=lambda: len(config.seeds),
        done=lambda: len(config.seeds) - len(missing()),
        do=do,
        check=check,
        decodes=decodes,
        unpriced="the training of SASRec, where it is not there yet" if config.d3_scores == "sasrec" else "",
    )


def _decodings(folder: Storage) -> list[dict[str, Any]]:
    """How the tables of shards right below a folder were decoded."""
    tables = [folder.child(name) for name in folder.names()]
    return [table.read_json(MANIFEST)["decoding"] for table in tables if table.exists(MANIFEST)]


_SASREC_EPOCHS = SASRecConfig().train.epochs


def _epochs(config: PaperConfig) -> int | None:
    """`decoding.d3_sasrec_epochs`: the default is not named, so that it is the same wherever it is from."""
    epochs = config.d3_sasrec_epochs or config.baseline_epochs
    return epochs if config.d3_scores == "sasrec" and epochs != _SASREC_EPOCHS else None


def _model(scores: str, epochs: int | None) -> str:
    """popularity, or SASRec with its epochs."""
    return f"sasrec of {epochs or _SASREC_EPOCHS} epochs" if scores == "sasrec" else scores


def _words(options: Collection[tuple[float, str]]) -> str:
    """d3_alpha 0.5, 0.9 and d3_scores sasrec of 20 epochs."""
    alphas, scores = (dict.fromkeys(str(option[i]) for option in options) for i in (0, 1))
    return f"d3_alpha {', '.join(alphas)} and d3_scores {', '.join(scores)}"
