"""A trained run decoded otherwise: chosen by validation, everything decoded once. Decoding is faked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bearray.config import RunConfig, to_dict
from bearray.evaluation import redecode
from bearray.evaluation.redecode import choose_decoding, redecoded
from bearray.runs import Storage
from bearray.trained import TrainedRun, open_run

OPTIONS = [{"decoding.method": "d3", "decoding.d3_alpha": alpha} for alpha in (0.5, 0.7, 0.9)]
RANKS = {0.5: 9.0, 0.7: 2.0, 0.9: 2.0}
"""0-based rank of the target, by alpha: the second is best, the third as good."""


@dataclass
class Decoder:
    """Stands for the actors; remembers what it decoded, and does not decode what is there."""

    decoded: list[tuple[str, float]] = field(default_factory=list)

    def split(
        self, config: RunConfig, checkpoint: str | None, folders: dict[Any, Storage], *, split: str, **_: Any
    ) -> dict[Any, pd.DataFrame]:
        ((name, folder),) = folders.items()
        alpha = config.decoding.d3_alpha
        if not folder.exists("predictions.json"):
            self.decoded.append((split, alpha))
            folder.write_json("predictions.json", {})
        frame = pd.DataFrame({"user_id": [1, 2], "rank": [RANKS[alpha]] * 2})
        frame.attrs["seconds"] = 3.5
        return {name: frame}

    def test(self, config: RunConfig, *_: Any, **__: Any) -> dict[str, Any]:
        self.decoded.append(("test", config.decoding.d3_alpha))
        return {"test": {"trie": {"all": {}}}, "seconds": {"test": 7.0}}


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    found = Decoder()
    monkeypatch.setattr(redecode, "decode_split", found.split)
    monkeypatch.setattr(redecode, "evaluate_run", found.test)
    return found


@pytest.fixture
def run(make_run: Any, tmp_path: Path) -> TrainedRun:
    folder = tmp_path / "runs" / "sft-1"
    (folder / "checkpoints" / "checkpoint_1").mkdir(parents=True)
    about = {"run": to_dict(make_run({})), "method": "SFT", "dataset": "demo", "base_model": "micro"}
    (folder / "config.json").write_text(json.dumps(about))
    ended = {
        "status": "finished",
        "checkpoint": "checkpoints/checkpoint_1",
        "best_epoch": 2,
        "seconds": {"train": 11.0, "valid": 1.0},
        "chosen": True,
    }
    (folder / "result.json").write_text(json.dumps(ended))
    return open_run(Storage(str(folder)))


def test_the_first_of_the_best_is_chosen_and_nothing_is_decoded_twice(
    decoder: Decoder, run: TrainedRun, tmp_path: Path
) -> None:
    valid, place = Storage(str(tmp_path / "valid")), Storage(str(tmp_path / "d3-1"))
    assert choose_decoding(run, OPTIONS, valid) == OPTIONS[1]
    result = redecoded(run, OPTIONS[1], place, valid=valid, method="D3", kind="tiny")
    assert decoder.decoded == [("valid", 0.5), ("valid", 0.7), ("valid", 0.9), ("test", 0.7)]
    assert result["valid"]["hr@5"] == 1 and result["valid"]["hr@1"] == 0
    assert result["seconds"] == {"train": 11.0, "valid": 3.5, "test": 7.0}
    assert (result["best_epoch"], result["checkpoint"], result["chosen"]) == (2, run.checkpoint, False)
    about = place.read_json("config.json")
    assert about["method"] == "D3" and about["decoded_from"] == "sft-1" and about["versions"]["torch"]
    assert (
        about["run"]["decoding"]["d3_alpha"] == 0.7 and about["run"]["train"] == to_dict(run.config)["train"]
    )


def test_a_finished_run_stays_as_it_is(decoder: Decoder, run: TrainedRun, tmp_path: Path) -> None:
    valid, place = Storage(str(tmp_path / "valid")), Storage(str(tmp_path / "d3-1"))
    first = redecoded(run, OPTIONS[0], place, valid=valid, method="D3", kind="tiny")
    assert redecoded(run, OPTIONS[0], place, valid=valid, method="D3", kind="tiny") == first
    assert decoder.decoded == [("valid", 0.5), ("test", 0.5)]


def test_a_single_option_is_not_measured(decoder: Decoder, run: TrainedRun, tmp_path: Path) -> None:
    assert choose_decoding(run, OPTIONS[:1], Storage(str(tmp_path))) == OPTIONS[0]
    assert decoder.decoded == []
