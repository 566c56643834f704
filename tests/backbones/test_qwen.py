"""Qwen2 and Qwen3 as base models: opened from a folder, trained and decoded as Llama is.

What is different in them: biases of queries, keys and values; norms of each head's queries and keys; tied
embeddings in the small ones; a sliding window in some layers where the config asks for one. Random weights.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora, merge_for_inference
from bearray.batching import collate, left_pad
from bearray.decoding import constrained_beam_search
from bearray.forward import check_projection, use_tree_attention
from bearray.objectives import at_least
from bearray.planning.shapes import shape_of
from tests.adapters import stir
from tests.decoding.helpers import assert_same_lists, generate
from tests.test_step import CASES, adapter_gradients, plain_logits, step_of
from tests.training.workers import Job, run_job

WINDOW = {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 1}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen2-window": (Qwen2Config, Qwen2ForCausalLM, WINDOW),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"tie_word_embeddings": True, "head_dim": 12}),
    "qwen3-window": (Qwen3Config, Qwen3ForCausalLM, WINDOW),
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, micro_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with large weights, and biases that are not 0, beside the tokenizer of the tests."""
    config_class, model_class, options = MODELS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(micro_base)
    vocabulary = json.loads((micro_base / "config.json").read_text())["vocab_size"]
    torch.manual_seed(3)
    config = config_class(
        vocab_size=vocabulary + 8,  # like the published ones, more rows than tokens
        hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, **options,
    )  # fmt: skip
    model = model_class(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
            else:
                weight.mul_(12.0 if "embed" in name or "head" in name else 4.0)
    place = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def adapted(folder: Path, task: Any) -> Any:
    base = load_model(str(folder), device="cpu")
    check_projection(base, "cpu")
    assert use_tree_attention(base, "cpu")
    return stir(add_lora(base, task.config.model))


@pytest.mark.parametrize("case", ["sft", "bear-equation-trie"])
def test_the_step_is_that_of_the_plain_model(case: str, folder: Path, micro_task: Any) -> None:
    settings, dense = CASES[case]
    model, examples = adapted(folder, micro_task), micro_task.examples()[:4]
    choices = micro_task.catalog.trie if "trie" in case else None
    batch = collate(examples, micro_task.pad_token_id, choices=choices)
    assert batch.layout.shared > 20 and batch.layout.grid.shape[1] > 24  # longer than the window
    output = step_of(model, micro_task, settings)(batch)
    ours = output.total / at_least(output.weight)
    theirs = dense(*plain_logits(model, examples, micro_task))
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)
    expected = adapter_gradients(model, theirs)
    scale = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in adapter_gradients(model, ours).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=2e-5 * scale, msg=name)


def test_checkpointing_changes_no_gradient(folder: Path, micro_task: Any) -> None:
    model = adapted(folder, micro_task).train()
    batch = collate(micro_task.examples()[:4], micro_task.pad_token_id)
    step = step_of(model, micro_task, {"name": "sft"})
    kept = adapter_gradients(model, step(batch).total)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    again = adapter_gradients(model, step(batch).total)
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, kept[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_beam_search_is_that_of_generate(normalize: str, folder: Path, micro_task: Any) -> None:
    """On the adapter, and on the model that it is merged into."""
    model = adapted(folder, micro_task).eval()
    titles = [list(t) for t in micro_task.catalog.tokens]
    cases = micro_task.cases("test", range(3))
    ids, mask = left_pad([c.prompt for c in cases], micro_task.pad_token_id)
    merged = merge_for_inference(model, copy_base=True)
    merged.config._attn_implementation = "sdpa"
    expected = generate_with(merged, ids, mask, titles, normalize, micro_task)
    for one in (model, merged):
        found = constrained_beam_search(
            one, ids, mask, micro_task.catalog.trie, beam_width=4, normalize=normalize
        )
        assert_same_lists(found, expected, rtol=1e-3, atol=1e-3)


def generate_with(model: Any, ids: Any, mask: Any, titles: Any, normalize: str, task: Any) -> Any:
    """`generate` of the decoders' tests, which has token ids of its own."""
    from tests.decoding import helpers

    before = helpers.EOS, helpers.PAD
    helpers.EOS, helpers.PAD = task.eos_token_id, task.pad_token_id
    try:
        return generate(model, ids, mask, titles, beam_width=4, normalize=normalize, length_penalty=0.0)
    finally:
        helpers.EOS, helpers.PAD = before


def test_a_run_learns(folder: Path, make_run: Any, tmp_path: Path) -> None:
    config = make_run({"model.base": str(folder), "objective.name": "sft", "train.epochs": 4})
    outcome = run_job(config, Job("qwen", epochs=4), tmp_path)
    losses = [row["loss"] for row in outcome.rows]
    assert len(losses) == 12 and sum(losses[9:]) < 0.95 * sum(losses[:3])


def test_its_sizes_are_known(folder: Path) -> None:
    shape = shape_of(str(folder))
    model = load_model(str(folder), device="cpu")
    assert shape.weights == sum(p.numel() for p in model.parameters())
    assert (shape.biases, shape.head_norms) == ("qwen2" in folder.name, "qwen3" in folder.name)
