"""Evaluation with any decoder: what an actor writes, and predictions of different decoders kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora, save_adapter
from bearray.config import DecodingMethod, override, to_dict
from bearray.errors import DataError, ResumeError
from bearray.evaluation import evaluate as evaluation
from bearray.evaluation.predictions import predictions_in, read_predictions
from bearray.evaluation.shards import write_shard
from bearray.recommend import DecoderInputs, recommend
from bearray.runs import ADAPTER, Storage
from tests.adapters import stir

CHANGES = {"decoding.beam_width": 4, "decoding.diverse_groups": 2, "decoding.exclude_history": True}


@pytest.fixture(scope="module")
def trained(make_run, tmp_path_factory) -> tuple[Any, str]:
    """A model with an adapter that matters, and its checkpoint."""
    config = make_run()
    base = load_model(config.model.base, dtype="float32", device="cpu")
    model = stir(add_lora(base, config.model, seed=0))
    folder = tmp_path_factory.mktemp("checkpoint")
    save_adapter(model, folder / ADAPTER)
    return model, str(folder)


@pytest.mark.parametrize("method", get_args(DecodingMethod))
def test_an_actor_decodes_as_the_unmerged_model_does(method, make_run, micro_task, trained):
    model, checkpoint = trained
    config = make_run({**CHANGES, "decoding.method": method})
    actor = evaluation.ShardDecoder(to_dict(config), checkpoint, "test")
    cases = micro_task.cases("test", range(5))
    titles, scores = recommend(
        model, cases, override(config.decoding, {"normalize": "full"}), DecoderInputs(micro_task, "cpu")
    )
    table = actor.table(cases, {"decoded": "full"}).to_pydict()
    items = np.array([found[0] for found in micro_task.catalog.items_of_title])
    assert table["items"] == np.where(titles >= 0, items[titles], -1).tolist()
    np.testing.assert_allclose(np.array(table["scores"]), scores, rtol=1e-3, atol=1e-4)
    assert (titles[:, 0] >= 0).all()


@pytest.fixture
def predictions(tmp_path, make_run, monkeypatch) -> Any:
    """`predictions({"decoding.method": "exact"})`: begin to decode into one folder, without any actor."""
    monkeypatch.setattr(evaluation, "make_shards", lambda *_: None)
    folder = Storage(str(tmp_path / "predictions"))

    def begin(changes: dict[str, Any]) -> None:
        with pytest.raises(DataError, match="is missing"):
            evaluation.decode_split(make_run(changes), None, {"trie": folder})

    return begin


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"decoding.method": "exact"}, r"decoding\.method: 'beam' -> 'exact'"),
        ({"decoding.exclude_history": True}, r"decoding\.exclude_history: False -> True"),
        ({"decoding.d3_alpha": 0.5}, r"decoding\.d3_alpha: 0\.9 -> 0\.5"),
    ],
)
def test_another_decoder_does_not_continue_these_predictions(changes, name, predictions):
    predictions({})
    predictions({})
    with pytest.raises(ResumeError, match=name):
        predictions(changes)


def test_predictions_from_before_there_were_decoders_are_refused(predictions, tmp_path):
    predictions({})
    folder = Storage(str(tmp_path / "predictions"))
    manifest = folder.read_json("manifest.json")
    del manifest["decoding"]["method"]
    folder.write_json("manifest.json", manifest)
    with pytest.raises(ResumeError, match=r"decoding\.method: None -> 'beam'"):
        predictions({})


@pytest.mark.parametrize(("method", "normalizers"), [("beam", ["trie", "full"]), ("grounding", ["trie"])])
def test_grounding_has_no_other_normalizer(method, normalizers, make_run, monkeypatch, tmp_path):
    asked: list[str] = []

    def decode(config: Any, checkpoint: Any, folders: dict[str, Storage], **_: Any) -> dict[str, Any]:
        asked.extend(folders)
        return {}

    monkeypatch.setattr(evaluation, "decode_split", decode)
    evaluation.evaluate_run(make_run({"decoding.method": method}), None, Storage(str(Path(tmp_path))))
    assert asked == normalizers


def test_exact_search_is_asked_for_apart(make_run, monkeypatch, tmp_path):
    asked: list[str] = []

    def decode(config: Any, checkpoint: Any, folders: dict[str, Storage], **_: Any) -> dict[str, Any]:
        asked.extend(f"{name} in {folder.root.rpartition('/')[2]}" for name, folder in folders.items())
        return {}

    monkeypatch.setattr(evaluation, "decode_split", decode)
    config = make_run({"evaluation.exact_test": True, "decoding.normalize": "full"})
    evaluation.evaluate_run(config, None, Storage(str(tmp_path)))
    assert asked == ["full in predictions", "trie in predictions_trie", "exact in predictions_exact"]
    asked.clear()  # a run whose own decoder is exact search has been decoded by it
    evaluation.evaluate_run(override(config, {"decoding.method": "exact"}), None, Storage(str(tmp_path)))
    assert len(asked) == 2


@pytest.mark.parametrize("budget", [None, 2])
def test_exact_predictions_say_what_is_proven(budget, micro_task, make_run, tmp_path):
    changes = {"decoding.exact_node_budget": budget, "decoding.length_penalty": 1.0}
    config = make_run({**changes, "decoding.normalize": "full"})
    actor = evaluation.ShardDecoder(to_dict(config), None, "test")
    cases = micro_task.cases("test", range(6))
    table = actor.table(cases, {"decoded": "exact"})
    assert set(table.column("proven").to_pylist()) == {budget is None}
    wanted = override(config.decoding, {"method": "exact", "length_penalty": 0.0})
    _, scores = recommend(actor.model, cases, wanted, DecoderInputs(micro_task, "cpu"))
    np.testing.assert_allclose(np.array(table.column("scores").to_pylist()), scores, rtol=1e-5)
    folder = Storage(str(tmp_path))
    predictions = predictions_in(folder, 6, 6, exact=True)
    predictions.begin({"rows": 6, "shard_size": 6, "decoding": to_dict(wanted)})
    write_shard(folder, 0, table)
    assert read_predictions(folder)["proven"].tolist() == table.column("proven").to_pylist()
