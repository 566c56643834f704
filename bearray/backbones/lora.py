"""LoRA adapters on a base model, by PEFT (Hu et al., ICLR 2022, 2106.09685).

A layer's weight W becomes W + (alpha / r) B A, with A [r, D_in] and B [D_out, r] trained and W frozen. B
starts at 0, so a new adapter changes nothing.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bearray.backbones.soft import REFERENCE, TRAINED
from bearray.config import ModelConfig
from bearray.errors import ModelError
from bearray.plain import Number, check_shape, parse_json

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def add_lora(model: PreTrainedModel, config: ModelConfig, *, seed: int = 42) -> PeftModel:
    """Freeze a base model and put a new, trainable adapter on it.

    The model is changed in place and wrapped. The adapter is initialised from `seed` alone and the global
    random state stays as it was, so every worker starts from the same adapter. Its weights are float32 even
    on a bfloat16 base (PEFT's default), because their updates are too small for bfloat16.

    Raises:
        ModelError: the model already has an adapter, or lacks one of `config.lora_targets`.
    """
    from peft import LoraConfig

    _check_targets(model, config.lora_targets)
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # annotated int, used as a factor
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=_has_conv1d(model, config.lora_targets),
    )
    return _wrap(model, settings, seed)


def set_dropout(model: nn.Module, rate: float) -> None:
    """Give a model's trained adapter another dropout, just as a new adapter with it would have it."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer) and TRAINED in layer.lora_dropout:
            layer.lora_dropout[TRAINED] = nn.Dropout(rate) if rate else nn.Identity()
            layer.lora_dropout[TRAINED].train(layer.training)


def save_adapter(model: PeftModel, folder: str | Path, *, state_dict: dict[str, Any] | None = None) -> Path:
    """Write the adapter in PEFT's format: adapter_config.json and adapter_model.safetensors, without the
    base.

    Args:
        state_dict: the full weights, where the model's own are partitioned over workers (ZeRO stage 3).
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    # save_embedding_layers: "auto" would ask the hub whether the vocabulary was resized; it never is here.
    model.save_pretrained(
        str(target),
        safe_serialization=True,
        save_embedding_layers=False,
        state_dict=state_dict,
        selected_adapters=[TRAINED],  # a frozen copy beside it is not what was trained
    )
    (target / "README.md").unlink(missing_ok=True)  # PEFT's unfilled model card template
    return target


def load_adapter(
    model: PreTrainedModel | PeftModel, folder: str | Path, *, trainable: bool = False
) -> PeftModel:
    """Put a saved adapter on a base model, or its weights into the adapter that the model already has.

    Strict: the file must hold exactly the adapter's tensors, in their shapes.

    Raises:
        ModelError: a file is missing or damaged, the base lacks a target layer, or the tensors do not fit.
    """
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    source = Path(folder)
    written = _read_config(source)
    try:
        saved = load_file(source / WEIGHTS_FILE)
        settings = LoraConfig.from_pretrained(str(source))
    except Exception as error:
        raise ModelError(f"adapter folder {source} cannot be read: {error}") from error
    sizes = {size for tensor in saved.values() for size in tensor.shape}
    if written["r"] not in sizes:  # before memory is taken for a rank that may be anything
        raise ModelError(f"adapter {source / WEIGHTS_FILE} has no tensor of rank {written['r']}")
    settings.init_lora_weights = True  # replaced at once; other ways change the base or read more files
    if isinstance(model, PeftModel):
        wrapped = model
    else:
        _check_targets(model, tuple(sorted(written["target_modules"])))
        try:
            wrapped = _wrap(model, settings, seed=0)
        except Exception as error:  # PEFT finds out only here that a setting is of a wrong type
            raise ModelError(f"adapter folder {source} has settings that do not work: {error!r}") from error
    _check_tensors(source, saved, get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    set_peft_model_state_dict(wrapped, saved)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name and f".{REFERENCE}." not in name:
            parameter.requires_grad_(trainable)
    return wrapped


def start_from(model: PeftModel, folder: str | Path, config: ModelConfig) -> None:
    """Put a saved adapter's weights into a new adapter, to train on from there.

    Args:
        model: as `add_lora` returns it.
        folder: of the adapter.
        config: what the new adapter was made from; the saved one must have been made from the same.

    Raises:
        ModelError: as `load_adapter`, or another rank, alpha or set of layers.
    """
    check_adapter(folder, config)
    load_adapter(model, folder, trainable=True)


def check_adapter(folder: str | Path, config: ModelConfig) -> None:
    """Make sure that a saved adapter can be trained on under these settings; reads no weights.

    Raises:
        ModelError: a file is missing or damaged, or another rank, alpha or set of layers.
    """
    source = Path(folder)
    saved = _read_config(source)
    there: dict[str, Any] = {
        "model.lora_r": saved["r"],
        "model.lora_alpha": float(saved["lora_alpha"]),
        "model.lora_targets": sorted(saved["target_modules"]),
    }
    here = [config.lora_r, float(config.lora_alpha), sorted(config.lora_targets)]
    for (name, value), wanted in zip(there.items(), here, strict=True):
        if value != wanted:
            raise ModelError(
                f"adapter {source} was trained with {name} {value}, this run has {wanted}; give it {value}"
            )


def merge_for_inference(model: PeftModel, *, copy_base: bool = False) -> PreTrainedModel:
    """Fold the adapter into the base weights and return the plain model, which decodes without LoRA overhead.

    In place by default: `model` must not be used afterwards. With `copy_base` it stays as it was, at the
    cost of a second set of weights in memory. In float32 the merged model's logits equal the adapter's to
    rounding; in bfloat16 small updates are rounded to the base's 8 bits, so decode unmerged where the last
    digits matter.

    Raises:
        ModelError: the adapter holds a value that is not finite, or is of a kind that cannot be merged.
    """
    source = copy.deepcopy(model) if copy_base else model
    try:
        merged = source.merge_and_unload(safe_merge=True)
    except Exception as error:  # values that are not finite, and settings of PEFT that only its merge refuses
        raise ModelError(f"the adapter cannot be merged: {error}") from error
    return merged.eval()


_CONFIG_SHAPE = {
    "r!": Number(whole=True, low=1),
    "lora_alpha!": Number(),
    "target_modules!": [str],  # PEFT also takes a pattern here, which a stranger could make to run for ever
    "peft_type": str,
    "lora_dropout": Number(low=0),
    "modules_to_save": (type(None), list),
}


def _read_config(source: Path) -> dict[str, Any]:
    """adapter_config.json, checked as far as it decides what is built."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (source / name).is_file():
            raise ModelError(f"adapter folder {source} has no {name}")
    try:
        saved: dict[str, Any] = parse_json((source / CONFIG_FILE).read_bytes())
        check_shape(saved, _CONFIG_SHAPE, str(source / CONFIG_FILE))
    except (OSError, ValueError) as error:  # DataError is one
        raise ModelError(f"{source / CONFIG_FILE} is damaged: {error}") from error
    return saved


def _wrap(model: PreTrainedModel, settings: LoraConfig, seed: int) -> PeftModel:
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        # PEFT initialises on the CPU and moves the result, so this one generator decides it.
        torch.default_generator.manual_seed(seed)
        return get_peft_model(model, settings)


def _linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _has_conv1d(model: nn.Module, targets: tuple[str, ...]) -> bool:
    """GPT-2 keeps its linear layers transposed; PEFT has to know."""
    layers = _linear_layers(model)
    return any(
        _matches(n, t) and not isinstance(layer, nn.Linear) for n, layer in layers.items() for t in targets
    )


def _check_targets(model: nn.Module, targets: tuple[str, ...]) -> None:
    if hasattr(model, "peft_config"):
        raise ModelError("the model already has an adapter; load the base model again")
    layers = _linear_layers(model)
    missing = [target for target in targets if not any(_matches(name, target) for name in layers)]
    if missing:
        available = sorted({name.rpartition(".")[2] for name in layers})
        raise ModelError(
            f"model.lora_targets: {type(model).__name__} has no linear layer named {', '.join(missing)}; "
            f"it has {', '.join(available)}"
        )


def _check_tensors(source: Path, saved: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    missing, unexpected = sorted(expected.keys() - saved.keys()), sorted(saved.keys() - expected.keys())
    if missing or unexpected:
        raise ModelError(
            f"adapter {source / WEIGHTS_FILE} does not fit this model: {len(missing)} tensors missing "
            f"(e.g. {missing[:2]}), {len(unexpected)} unexpected (e.g. {unexpected[:2]})"
        )
    for name, tensor in saved.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"adapter {source / WEIGHTS_FILE} does not fit this model: {name} is {list(tensor.shape)}, "
                f"must be {list(expected[name].shape)}"
            )
