"""Adapters: fresh ones change nothing, saved ones come back, merged ones agree, wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from bearray.backbones.load import load_model
from bearray.backbones.lora import WEIGHTS_FILE, add_lora, load_adapter, merge_for_inference, save_adapter
from bearray.config import ModelConfig
from bearray.errors import ModelError
from tests.adapters import stir

CONFIG = ModelConfig(lora_r=3, lora_alpha=7.5, lora_dropout=0.5)
TOKENS = torch.arange(24).view(2, 12)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


@pytest.fixture
def base(micro_folder: Path):
    return load_model(str(micro_folder), device="cpu")


@pytest.fixture
def tuned(base):
    """A model whose adapter does something."""
    return stir(add_lora(base, CONFIG, seed=1), std=1.0)


def test_a_new_adapter_changes_nothing_and_is_all_that_trains(base) -> None:
    before = logits(base)
    model = add_lora(base, CONFIG)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    assert {name.split(".")[-4] for name in trainable} == {"q_proj", "v_proj"}


def test_the_seed_alone_decides(micro_folder: Path) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        model = add_lora(load_model(str(micro_folder), device="cpu"), CONFIG, seed=seed)
        return [p for n, p in model.named_parameters() if "lora_A" in n]

    first, state = weights(1), torch.get_rng_state()
    torch.manual_seed(99)
    again = weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], weights(2)[0])
    torch.set_rng_state(state)
    add_lora(load_model(str(micro_folder), device="cpu"), CONFIG, seed=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_round_trip_by_us_and_by_peft(tuned, micro_folder: Path, tmp_path: Path) -> None:
    wanted = logits(tuned)
    save_adapter(tuned, tmp_path / "a" / "b")
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["adapter_config.json", WEIGHTS_FILE]
    ours = load_adapter(load_model(str(micro_folder), device="cpu"), tmp_path / "a" / "b")
    assert not any(p.requires_grad for p in ours.parameters())
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(micro_folder), tmp_path / "a" / "b"
    )
    for model in (ours, theirs):
        torch.testing.assert_close(logits(model), wanted, rtol=0, atol=0)


def test_weights_go_into_an_adapter_that_is_there(tuned, micro_folder: Path, tmp_path: Path) -> None:
    wanted = logits(tuned)
    save_adapter(tuned, tmp_path)
    other = add_lora(load_model(str(micro_folder), device="cpu"), CONFIG, seed=9)
    resumed = load_adapter(other, tmp_path, trainable=True)
    assert resumed is other
    assert all(p.requires_grad == ("lora_" in n) for n, p in resumed.named_parameters())
    torch.testing.assert_close(logits(resumed), wanted, rtol=0, atol=0)


def test_merged_equals_unmerged(tuned) -> None:
    wanted = logits(tuned)
    assert not torch.allclose(wanted, logits_without(tuned))
    merged = merge_for_inference(tuned, copy_base=True)
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-5)
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(tuned), wanted, rtol=0, atol=0)  # the copy left it alone
    torch.testing.assert_close(logits(merge_for_inference(tuned)), wanted, rtol=1e-4, atol=1e-5)


def logits_without(model) -> torch.Tensor:
    with model.disable_adapter():
        return logits(model)


def test_merging_refuses_what_is_not_finite(tuned) -> None:
    next(p for n, p in tuned.named_parameters() if "lora_B" in n).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="cannot be merged"):
        merge_for_inference(tuned)


def test_unknown_target_lists_what_there_is(base) -> None:
    with pytest.raises(ModelError, match=r"no linear layer named query_proj; it has .*k_proj.*q_proj"):
        add_lora(base, ModelConfig(lora_targets=("q_proj", "query_proj")))


def test_no_second_adapter(base) -> None:
    with pytest.raises(ModelError, match="already has an adapter"):
        add_lora(add_lora(base, CONFIG), CONFIG)


@pytest.mark.parametrize(("edit", "message"), [("drop", "1 tensors missing"), ("add", "1 unexpected")])
def test_loading_is_strict_about_names(
    tuned, micro_folder: Path, tmp_path: Path, edit: str, message: str
) -> None:
    save_adapter(tuned, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    if edit == "drop":
        tensors.pop(sorted(tensors)[0])
    else:
        tensors["base_model.model.extra.lora_A.weight"] = torch.zeros(2)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ModelError, match=message):
        load_adapter(load_model(str(micro_folder), device="cpu"), tmp_path)


def test_loading_is_strict_about_shapes(tuned, micro_folder: Path, tmp_path: Path) -> None:
    save_adapter(tuned, tmp_path)
    wider = add_lora(load_model(str(micro_folder), device="cpu"), ModelConfig(lora_r=4))
    with pytest.raises(ModelError, match=r"must be \[4, 32\]|must be \[\d+, 4\]"):
        load_adapter(wider, tmp_path)


def test_loading_names_what_is_missing(tuned, base, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        load_adapter(base, tmp_path)
    save_adapter(tuned, tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / WEIGHTS_FILE).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(base, tmp_path)
    assert settings["r"] == 3 and settings["lora_alpha"] == 7.5 and settings["bias"] == "none"


def test_transposed_layers_of_gpt2_merge(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2)
    model = add_lora(GPT2LMHeadModel(config).eval(), ModelConfig(lora_r=2, lora_targets=("c_attn",)))
    stir(model, std=1.0)
    wanted = logits(model)
    torch.testing.assert_close(logits(merge_for_inference(model)), wanted, rtol=1e-4, atol=1e-5)
