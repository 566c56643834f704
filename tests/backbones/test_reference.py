"""The frozen reference: the base, or the adapter as it was, without disturbing the one in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora, check_adapter, load_adapter, save_adapter, start_from
from bearray.backbones.reference import add_reference, as_reference, reference_parameters, refresh_reference
from bearray.config import ModelConfig
from bearray.errors import ModelError

IDS = torch.arange(3, 12)[None]
LORA = ModelConfig(lora_r=2, lora_dropout=0.5)


def shake(model: Any, seed: int) -> None:
    """Other weights for the adapter in training."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".default." in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=g))


@pytest.fixture
def model(micro_base: Path) -> Any:
    model = add_lora(load_model(str(micro_base), device="cpu"), LORA)
    shake(model, 1)
    return model


def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits.detach()


def state(model: Any) -> list[tuple[bool, ...]]:
    return [(p.requires_grad,) for p in model.parameters()] + [(m.training,) for m in model.modules()]


def test_the_base_is_the_model_without_its_adapter(model: Any, micro_base: Path) -> None:
    plain = logits(load_model(str(micro_base), device="cpu"))
    model.train()
    before = state(model)
    with as_reference(model, "base"):
        assert torch.equal(logits(model), plain)
        assert not torch.is_grad_enabled() and not model.training
    assert state(model) == before and torch.is_grad_enabled()
    model.eval()
    assert not torch.allclose(logits(model), plain, atol=1e-3)


def test_the_start_stays_while_the_adapter_moves_on(model: Any) -> None:
    model.eval()
    started = logits(model)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    add_reference(model)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trainable
    assert torch.equal(logits(model), started)
    shake(model, 2)
    model.train()  # dropout of 0.5, which a reference must not have
    before = state(model)
    for _ in range(2):
        with as_reference(model, "start"):
            assert torch.equal(logits(model), started)
    assert state(model) == before
    model.eval()
    moved = logits(model)
    assert not torch.allclose(moved, started, atol=1e-3)
    refresh_reference(model)
    with as_reference(model, "start"):
        assert torch.equal(logits(model), moved)


def test_gradients_are_those_without_a_reference_pass(model: Any) -> None:
    model.eval()

    def gradients() -> list[torch.Tensor]:
        weights = [p for p in model.parameters() if p.requires_grad]
        return list(torch.autograd.grad(model(input_ids=IDS).logits.log_softmax(-1)[..., 3].sum(), weights))

    plain = gradients()
    add_reference(model)
    with as_reference(model, "start"):
        logits(model)
    for ours, theirs in zip(gradients(), plain, strict=True):
        assert torch.equal(ours, theirs)


def test_an_error_inside_switches_back(model: Any) -> None:
    model.eval()
    before = logits(model)
    with pytest.raises(RuntimeError, match="inside"), as_reference(model, "base"):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), before)


def test_what_has_no_reference_is_refused(model: Any, micro_base: Path) -> None:
    with pytest.raises(ModelError, match="add_reference"), as_reference(model, "start"):
        pass
    with (
        pytest.raises(ModelError, match="no adapter"),
        as_reference(load_model(str(micro_base), device="cpu"), "base"),
    ):
        pass


def test_the_copy_is_not_saved_as_the_trained_one(model: Any, micro_base: Path, tmp_path: Path) -> None:
    add_reference(model)
    shake(model, 3)
    saved = save_adapter(model, tmp_path / "a")
    assert sorted(f.name for f in saved.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    again = load_adapter(load_model(str(micro_base), device="cpu"), saved).eval()
    assert torch.equal(logits(again), logits(model.eval()))
    frozen = {n: p.clone() for n, p in reference_parameters(model).items()}
    shake(model, 4)
    load_adapter(model, saved, trainable=True)  # into a model with a copy, which it leaves alone
    assert torch.equal(logits(again), logits(model.eval()))
    for name, weight in reference_parameters(model).items():
        assert torch.equal(weight, frozen[name]) and not weight.requires_grad


def test_training_may_start_from_a_saved_adapter(model: Any, micro_base: Path, tmp_path: Path) -> None:
    saved = save_adapter(model, tmp_path / "a")
    fresh = add_lora(load_model(str(micro_base), device="cpu"), LORA)
    start_from(fresh, saved, LORA)
    assert torch.equal(logits(fresh.eval()), logits(model.eval()))
    assert all(p.requires_grad for n, p in fresh.named_parameters() if "lora_" in n)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_r": 4}, r"trained with model\.lora_r 2, this run has 4; give it 2"),
        ({"lora_alpha": 8.0}, r"trained with model\.lora_alpha 16\.0, this run has 8\.0"),
        (
            {"lora_targets": ("q_proj",)},
            r"model\.lora_targets \['q_proj', 'v_proj'\], this run has \['q_proj'\]",
        ),
    ],
)
def test_an_adapter_of_other_settings_is_refused(settings, message, model: Any, tmp_path: Path) -> None:
    saved = save_adapter(model, tmp_path / "a")
    with pytest.raises(ModelError, match=message):
        check_adapter(saved, ModelConfig(**{"lora_r": 2, **settings}))


def test_a_damaged_adapter_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        check_adapter(tmp_path, LORA)
    saved = save_adapter(model, tmp_path / "a")
    (saved / "adapter_config.json").write_text('{"r": 2}')
    with pytest.raises(ModelError, match=r"adapter_config\.json is damaged"):
        check_adapter(saved, LORA)
