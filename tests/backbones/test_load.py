"""Folders and hub ids: what opens, in which type, and what the error names when it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, GPT2Config, T5Config

from bearray.backbones import PRESETS, base_model_kind, resolve_base
from bearray.backbones.load import load_model, load_tokenizer, resolve_dtype
from bearray.errors import ModelError


@pytest.fixture
def folder(micro_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_folder, tmp_path / "base"))


def test_round_trip_is_plain_hugging_face(micro_folder: Path) -> None:
    ours = load_model(str(micro_folder), device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(micro_folder).eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits)
    assert not ours.training
    assert ours.config._attn_implementation == "sdpa"


def test_types() -> None:
    assert resolve_dtype("auto", "cpu") is torch.float32
    assert resolve_dtype("auto", "cuda") is torch.bfloat16
    assert resolve_dtype("float32", "cuda") is torch.float32
    assert resolve_dtype(torch.float16, "cpu") is torch.float16


def test_weights_have_the_type_asked_for(micro_folder: Path) -> None:
    assert load_model(str(micro_folder), device="cpu").dtype is torch.float32
    assert load_model(str(micro_folder), dtype="bfloat16", device="cpu").dtype is torch.bfloat16


def test_special_tokens_and_sampling_are_settled(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "eos_token_id": [1, 5, 6], "pad_token_id": None})
    )
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [1, 5, 6]}
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    model = load_model(str(folder), device="cpu")
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 1
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 1
    assert model.generation_config.do_sample is False and model.generation_config.temperature is None
    rows = model.get_input_embeddings().num_embeddings
    assert rows == config["vocab_size"]  # never resized


def _break(folder: Path, what: str) -> None:
    if what == "tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
    elif what == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif what == "damaged weights":
        (folder / "model.safetensors").write_bytes(b"no tensors here")
    elif what == "damaged config":
        (folder / "config.json").write_text("{")
    elif what == "shard":
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif what == "adapter":
        (folder / "config.json").rename(folder / "adapter_config.json")
    elif what == "vocabulary":
        tokenizer = load_tokenizer(str(folder))
        tokenizer.add_tokens([f"<extra{i}>" for i in range(600)])
        tokenizer.save_pretrained(folder)
    else:
        (folder / what).unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("tokenizer", "has no tokenizer; one of tokenizer.json"),
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("pickle", "pytorch_model.bin is a pickle, which is never read"),
        ("shard", "lacks weights named in its index: model-00001-of-00002"),
        ("damaged weights", "the model cannot be opened"),
        ("damaged config", "cannot be opened"),
        ("adapter", "holds an adapter, not a base model"),
        ("vocabulary", "the two do not belong together"),
    ],
)
def test_errors_name_the_fault(folder: Path, what: str, message: str) -> None:
    _break(folder, what)
    with pytest.raises(ModelError, match=message):
        load_model(str(folder), device="cpu")


def test_not_a_causal_model(folder: Path) -> None:
    T5Config().save_pretrained(folder)
    with pytest.raises(ModelError, match="cannot be opened"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("base", ["/no/such/folder", "./nothing", "~/no-such-model"])
def test_missing_folder(base: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_tokenizer(base)


def test_hub_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"hf download meta-llama/Llama-3.2-3B.*local:tiny"):
        load_tokenizer("llama-3.2-3B")


def test_names(awkward_data, micro_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_base("Llama-3.2-1B", awkward_data) == PRESETS["llama-3.2-1b"] == "meta-llama/Llama-3.2-1B"
    assert resolve_base("org/model", awkward_data) == "org/model"
    assert resolve_base(str(micro_folder), awkward_data) == str(micro_folder)
    monkeypatch.chdir(micro_folder.parent)
    monkeypatch.setenv("HOME", str(micro_folder.parent))
    for name in (micro_folder.name, f"./{micro_folder.name}/", f"~/{micro_folder.name}"):
        assert resolve_base(name, awkward_data) == str(micro_folder), name  # for workers, which are elsewhere
    with pytest.raises(ModelError, match="size 'huge'; sizes are tiny, small, medium"):
        resolve_base("local:huge", awkward_data)
    with pytest.raises(ModelError, match="build it first"):
        load_tokenizer("local:tiny")


def test_kinds(micro_folder: Path, tmp_path: Path) -> None:
    assert base_model_kind("local:tiny") == base_model_kind(str(micro_folder)) == "local stand-in"
    assert base_model_kind(str(tmp_path)) == base_model_kind("./later") == "folder"
    assert base_model_kind("llama-3.2-1b") == base_model_kind("org/model") == "hub"


@pytest.mark.parametrize("config", [GPT2Config, BertConfig])
def test_another_architecture_opens(folder: Path, config: type) -> None:
    """Any causal model will do; only its name for things differs."""
    small = {"vocab_size": 420, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    extra = {"is_decoder": True, "intermediate_size": 16} if config is BertConfig else {}
    AutoModelForCausalLM.from_config(config(**small, **extra)).save_pretrained(folder)
    model = load_model(str(folder), device="cpu")
    assert model(torch.arange(5)[None]).logits.shape == (1, 5, 420)
