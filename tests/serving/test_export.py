"""An export recommends what its run folder does, and says where it comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from safetensors.torch import load_file

from bearray import provenance
from bearray.config import override
from bearray.errors import ConfigError, DataError, MissingFileError, ModelError, StorageError
from bearray.runs import Storage
from bearray.serving import Recommender, open_recommender
from bearray.serving.card import md, model_card
from bearray.serving.export import export_run, shown, without_paths
from bearray.trained import load_trained, open_run


@pytest.fixture(scope="module")
def export(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(str(run_folder), tmp_path_factory.mktemp("exports") / "bear-demo")


def test_it_recommends_what_the_unmerged_run_does(
    export: Path, run_folder: Path, recommender: Recommender, histories: list[list[str]]
) -> None:
    run = open_run(Storage(str(run_folder)))
    unmerged = Recommender(
        load_trained(run.config.model, run.checkpoint, "cpu", merge=False),
        recommender.catalog,
        recommender.backbone,
        recommender.decoding,
    )
    opened = open_recommender(str(export), device="cpu")
    for exact in (False, True):
        there = opened.recommend(histories, exact=exact)
        for mine, own in zip(there, unmerged.recommend(histories, exact=exact), strict=True):
            assert mine.proven == own.proven
            assert [(i.title, i.item_ids) for i in mine.items] == [(i.title, i.item_ids) for i in own.items]
            for name in ("score", "margin"):
                mine_values, own_values = ([getattr(i, name) for i in row.items] for row in (mine, own))
                assert mine_values == pytest.approx(own_values, rel=1e-4, abs=1e-4)
    assert opened.decoding == recommender.decoding
    assert opened.about["dataset"] == "demo" and opened.about["titles"] == len(recommender.catalog)


def test_the_adapter_is_in_the_weights(export: Path, micro_base: Path) -> None:
    merged, base = load_file(export / "model.safetensors"), load_file(micro_base / "model.safetensors")
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    assert {t.dtype for t in merged.values()} == {torch.float32}
    assert len({file.stat().st_mode for file in export.iterdir()}) == 1


def test_no_path_of_this_machine_is_in_it(export: Path, run_folder: Path, demo_dir: Path) -> None:
    text = (export / "bearray.json").read_text() + (export / "README.md").read_text()
    text += (export / "config.json").read_text()
    for place in (run_folder.parent.parent, demo_dir.parent, export.parent, Path.home()):
        assert str(place) not in text
    about = json.loads((export / "bearray.json").read_text())
    assert about["settings"]["data"]["path"] == "demo"
    assert about["result"]["test"]["trie"]["all"]["ndcg@10"]["mean"] == 0.25
    assert "checkpoint" not in about["result"]
    assert about["exported"]["versions"]["python"] == provenance.versions()["python"]


def test_the_card_has_the_figures_and_what_a_reader_must_know(export: Path) -> None:
    card = (export / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "transformers"\n')
    assert "# BEAR on demo" in card
    for words in ("(`trie`)", "(`full`)"):
        part = card.split(words)[1]
        assert "| NDCG@10 | 0.2500 [0.1250, 0.5000] |" in part
    assert "all (11 windows)" in card and "warm" not in card.split("| metric |")[1].splitlines()[0]
    for phrase in ("stand-in", "Intended use", "Licence of the base model", "abc1234", "torch 2.13.0"):
        assert phrase in card
    settings = card.split("## Settings")[1].split("## Use")[0]
    assert "- objective.name: bear\n" in settings and "- model.lora\\_r" not in settings
    assert "- model.lora_r: 2\n" in settings and "weight_decay" not in settings


def test_the_licence_is_unknown_unless_known(export: Path) -> None:
    about = json.loads((export / "bearray.json").read_text()) | {"base_model_kind": "hub"}
    llama = model_card(about | {"base_model": "meta-llama/Llama-3.2-3B"})
    assert 'license: "llama3.2"' in llama and 'base_model: "meta-llama/Llama-3.2-3B"' in llama
    other = model_card(about | {"base_model": "someone/model"})
    assert 'license: "unknown"' in other and "unknown here; ask" in other


def test_the_card_of_a_damaged_or_later_result(export: Path) -> None:
    about = json.loads((export / "bearray.json").read_text())
    groups = {"all": {"n": 3, "hr@1|x": {"mean": 0.5}, "ndcg@10": {"mean": 0.25, "low": 0.125, "high": 0.5}}}
    about["result"]["test"] = {"trie_lp1": groups, "some day": groups | {"proven": None}, "full": {}}
    card = model_card(about)
    assert "**Beam search with length penalty 1" in card and "**Some day**" in card
    assert "| NDCG@10 | 0.2500 [0.1250, 0.5000] |" in card and "| HR@1\\|X | - |" in card


def test_a_run_that_was_not_tested_says_so(export: Path) -> None:
    about = json.loads((export / "bearray.json").read_text())
    del about["result"]["test"]
    card = model_card(about)
    assert "Not tested" in card and "NDCG@10 0.2500" in card


HOSTILE = (
    "<script>x</script> [a](https://x.y) ![i](https://x.y) <https://x.y> &lt;b&gt; `c` **d** | ~~e~~\n"
    "# heading\n\n<div>\u202e\x1b[2J"
)


def hostile(value: Any) -> Any:
    """A tree of JSON values with every text, and every key that a run chooses itself, replaced."""
    if isinstance(value, dict):
        return {name: hostile(part) for name, part in value.items()}
    return HOSTILE if isinstance(value, str) else value


def test_text_of_others_stays_text(export: Path) -> None:
    about = json.loads((export / "bearray.json").read_text())
    card = model_card(about)
    about = hostile(about) | {"base_model_kind": "hub"}
    about["trained"]["versions"] |= {HOSTILE: HOSTILE}
    about["result"]["best_epoch"] = HOSTILE
    about["result"]["valid"] |= {HOSTILE: 0.5}
    about["result"]["test"][HOSTILE] = {"all": {"n": 3, f"hr@10{HOSTILE}": {"mean": 0.5}}}
    worse = model_card(about)
    assert "\x1b" not in worse and "\u202e" not in worse
    front, body = worse.split("\n---\n", 1)
    assert len(front.splitlines()) == 6  # YAML, in which each value is JSON

    def kinds(text: str) -> list[str]:
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        return [part.type for token in tokens for part in [token, *(token.children or ())]]

    assert not {k for k in kinds(body) if k.startswith(("html", "link", "image", "s_"))}
    assert kinds(body).count("heading_open") == kinds(card.split("\n---\n", 1)[1]).count("heading_open")
    rendered = MarkdownIt("commonmark").render(md(HOSTILE))
    assert "&lt;script&gt;" in rendered and "&amp;lt;b&amp;gt;" in rendered and rendered.count("<") == 2


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("/home/me/models/tiny-1", "tiny-1"),
        ("~/tiny", "tiny"),
        ("s3://bucket/some/model", "model"),
        ("C:\\models\\tiny", "tiny"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("llama-3.2-1b", "llama-3.2-1b"),
        ("local:tiny", "local:tiny"),
    ],
)
def test_names_of_base_models(base: str, name: str) -> None:
    assert shown(base) == name


def test_an_adapter_that_training_started_from_loses_its_path(make_run) -> None:
    started = override(make_run(), {"train.init_adapter": "/home/me/adapters/first"})
    assert without_paths(started)["train"]["init_adapter"] == "first"
    assert without_paths(override(started, {"train.init_adapter": "run:sft-1"}))["train"]["init_adapter"] == (
        "run:sft-1"
    )


def test_half_the_bytes_on_demand(run_folder: Path, tmp_path: Path, export: Path) -> None:
    small = export_run(str(run_folder), tmp_path / "small", dtype="bfloat16")
    assert {t.dtype for t in load_file(small / "model.safetensors").values()} == {torch.bfloat16}
    assert next(open_recommender(str(small), device="cpu").model.parameters()).dtype == torch.bfloat16


def test_a_folder_that_is_not_empty_is_left_alone(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is not empty"):
        export_run(str(run_folder), tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_fails_leaves_nothing(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(about: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bearray.serving.export.model_card", full)
    with pytest.raises(StorageError, match=r"cannot write the export to .*No space left"):
        export_run(str(run_folder), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(export: Path, run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is an export already"):
        export_run(str(export), tmp_path / "out")
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        export_run(str(run_folder), tmp_path / "out", dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leave out --data-dir"):
        open_recommender(str(export), data_dir="x")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data_hash": None}, DataError, "has no data_hash"),
        ({"data": "s3://a-strangers/data"}, MissingFileError, "an address that a run names is not opened"),
        ({"model": "a-stranger/model"}, ModelError, "never downloaded here"),
    ],
)
def test_what_a_strangers_run_names_is_not_exported(
    run_folder: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    about["run"]["data"]["path"] = changes.pop("data", about["run"]["data"]["path"])
    about["run"]["model"]["base"] = changes.pop("model", about["run"]["model"]["base"])
    (tmp_path / "run" / "config.json").write_text(json.dumps(about | changes))
    with pytest.raises(error, match=message):
        export_run(str(tmp_path / "run"), tmp_path / "out")
    with pytest.raises(error, match=message):
        open_recommender(str(tmp_path / "run"), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("bearray.json", "{", DataError, "is not valid JSON"),
        ("bearray.json", '{"format": 99}', DataError, "is of format 99"),
        ("bearray.json", "[]", DataError, r"bearray\.json"),
        ("bearray.json", '{"format": 1}', DataError, "is damaged at 'prompt'"),
        ("bearray.json", "max_tokens", DataError, r"is damaged at 'max_tokens': it is \{\}"),
        ("tokenizer_config.json", "model_max_length", ModelError, "tokenizer"),
        ("items.parquet", "PAR1", DataError, r"cannot be read as a Parquet file.*export the run again"),
        ("items.parquet", None, MissingFileError, r"items\.parquet does not exist"),
        ("model.safetensors", "x", ModelError, "cannot be opened"),
        ("model.safetensors", None, ModelError, r"no model\.safetensors"),
    ],
)
def test_damage_is_named(
    export: Path, tmp_path: Path, name: str, content: str | None, error: type[Exception], message: str
) -> None:
    for file in export.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / name).unlink()
    if content in ("max_tokens", "model_max_length"):  # of another type
        about = json.loads((export / name).read_text())
        about.get("prompt", about)[content] = {}
        content = json.dumps(about)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        open_recommender(str(tmp_path), device="cpu")
