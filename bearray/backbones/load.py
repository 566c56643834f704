"""Opening a base model and its tokenizer: a folder or a hub id, checked so that errors say what is missing.

Weights are read from safetensors only and no code that comes with a model is ever run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from bearray.backbones.presets import PRESETS, STAND_IN_CARD, expand_preset, is_folder
from bearray.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DType = Literal["auto", "bfloat16", "float32"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Any of these makes a folder's tokenizer."""


def load_tokenizer(base: str, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model (preset, hub id or folder).

    Raises:
        ModelError: no such folder, no tokenizer in it, a damaged one, or a hub id that cannot be reached.
    """
    from transformers import AutoTokenizer

    name = _checked_name(base, needs_weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        tokenizer("a", add_special_tokens=True)  # settings of a wrong type show only where they are used
        return tokenizer
    except Exception as error:  # transformers, huggingface_hub and tokenizers raise a dozen kinds
        raise ModelError(_explain(base, name, "tokenizer", error)) from error
    except BaseException as panic:  # tokenizers' own code, which is Rust, has given up: no Exception
        if type(panic).__name__ != "PanicException":
            raise
        raise ModelError(f"the tokenizer of {base} is damaged: {panic}") from panic


def load_model(
    base: str,
    *,
    dtype: DType | torch.dtype = "auto",
    device: str | torch.device | None = None,
    attn_implementation: str = "sdpa",
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """A causal language model, ready for decoding and for an adapter, in evaluation mode.

    Its `config.eos_token_id` becomes the tokenizer's single end-of-sequence id (hub configs may hold
    several), its pad id the tokenizer's or, where there is none, that same id; embeddings are never
    resized. Sampling settings that come with a model are cleared, because recommendations are never
    sampled.

    Args:
        base: preset, hub id or folder.
        dtype: of the weights; "auto" is bfloat16 on GPU and float32 elsewhere.
        device: None takes a GPU where there is one.
        attn_implementation: as in transformers.
        revision: branch, tag or commit of a hub id.
        tokenizer: the model's, if it is already loaded; else it is opened here for its special tokens.

    Raises:
        ModelError: no such folder or hub id, a missing or damaged file, not a causal language model, or a
            vocabulary smaller than its tokenizer's.
    """
    from transformers import AutoModelForCausalLM

    name = _checked_name(base, needs_weights=True)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tokenizer = tokenizer or load_tokenizer(base, revision=revision)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            dtype=resolve_dtype(dtype, place),
            attn_implementation=attn_implementation,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:
        raise ModelError(_explain(base, name, "model", error)) from error
    _set_special_tokens(model, tokenizer, base)
    return cast("PreTrainedModel", cast(torch.nn.Module, model).to(place).eval())


def resolve_dtype(dtype: DType | torch.dtype, device: str | torch.device) -> torch.dtype:
    """The torch type behind a config's name; "auto" is bfloat16 on GPU and float32 elsewhere."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]


def _set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: str) -> None:
    rows = cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"base model {base!r}: its tokenizer has {len(tokenizer)} tokens, its embedding only {rows}; "
            "the two do not belong together"
        )
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ModelError(
            f"base model {base!r}: its tokenizer has no end-of-sequence token; a title could never end"
        )
    pad = eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    generation = model.generation_config
    for settings in (model.config, generation):
        settings.eos_token_id = int(eos)
        settings.pad_token_id = int(pad)
    if generation is not None:
        generation.do_sample = False
        generation.temperature = generation.top_p = generation.top_k = None


def _checked_name(base: str, *, needs_weights: bool) -> str:
    name = expand_preset(base)
    if is_folder(name):
        _check_folder(Path(name), needs_weights=needs_weights)
    return name


def _check_folder(folder: Path, *, needs_weights: bool) -> None:
    """Name the missing file, instead of what a library says when it takes the folder for a hub id."""
    if not folder.is_dir():
        raise ModelError(f"base model folder {folder} does not exist")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds an adapter, not a base model; give the model it was trained on")
    if not (folder / "config.json").is_file():
        raise ModelError(f"base model folder {folder} has no config.json")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"base model folder {folder} has no tokenizer; one of {', '.join(TOKENIZER_FILES)} must be there "
            "(tokenizer.save_pretrained writes it)"
        )
    if needs_weights:
        _check_weights(folder)


def _check_weights(folder: Path) -> None:
    if (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} is damaged: {error}") from error
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(
                f"base model folder {folder} lacks weights named in its index: {', '.join(missing)}"
            )
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    hint = (
        f"; {pickled[0]} is a pickle, which is never read: save it with safe_serialization=True"
        if pickled
        else ""
    )
    raise ModelError(f"base model folder {folder} has no model.safetensors{hint}")


def _explain(base: str, name: str, what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if is_folder(name):
        return f"base model folder {name}: the {what} cannot be opened: {reason}"
    known = ", ".join(PRESETS)
    return (
        f"base model {base!r}: the {what} of hub id {name!r} cannot be opened: {reason}\n"
        f"If this machine is offline or the model is gated, download it first where that works "
        f"(hf download {name}) and pass its folder; local:tiny needs no download; presets are {known}."
    )


def is_stand_in(folder: str | Path) -> bool:
    """Whether a folder holds a stand-in built by `bearray.backbones.tiny`."""
    return (Path(folder) / STAND_IN_CARD).is_file()
