"""Bytes that a training step's forward pass leaves for its backward pass, and what comes on top while it
runs.

Read off the layers of Llama and its kin as `transformers` computes them, LoRA as PEFT does, and tree
attention (`bearray.tree_attention`): a frozen weight's input is not kept, a norm keeps its input in float32,
LoRA keeps its own input in float32, SDPA keeps queries, keys, values and output of a padded table of rows. A
test compares with what PyTorch allocates in real steps (tests/planning/test_memory.py,
benchmarks/memory_plan.py).

Axis letters: L tokens of the micro-batch, S of them the start that its prompts share, R rows, W tokens of the
longest row behind that start, N answer tokens, V vocabulary, C columns of it, K valid next tokens at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from bearray.config import ModelConfig
from bearray.planning.shapes import Shape

FLOAT = 4
"""Bytes of what is always float32: LoRA, norms, losses."""
INDEX = 8


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """The sizes of a micro-batch, as `bearray.batching.collate` lays it out."""

    rows: int
    """R."""
    shared: int
    """S."""
    width: int
    """W, answers included."""
    tokens: int
    """L."""
    predicted: int
    """N."""
    choices: int
    """K."""
    columns: int | None = None
    """C; None: all of the vocabulary."""
    masked: bool = True
    """Attention needs a mask: prompts share a start, or windows have several answers."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How numbers are held."""

    element: int
    """Bytes of a weight and of an activation: 2 in bfloat16, 4 in float32."""
    fused_dropout: bool
    """Dropout keeps a mask of bytes (GPU), not one of floats (CPU)."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch above weights, gradients and the optimiser's state."""

    kept: int
    """What the forward pass leaves."""
    peak: int
    """At most, at any time of forward and backward pass."""


def activations(
    shape: Shape, batch: MicroBatch, model: ModelConfig, numbers: Numbers, *, checkpointing: bool
) -> Activations:
    """Memory of a training step's forward and backward pass over one micro-batch.

    Args:
        shape: of the base model. batch: the micro-batch. model: LoRA's settings.
        numbers: how numbers are held.
        checkpointing: layers keep their input only, and are computed again in the backward pass.
    """
    states = numbers.element * batch.tokens * shape.hidden
    once = _once(shape, batch, numbers)
    head, head_peak = _head(shape, batch, numbers)
    if checkpointing:
        layer = layer_kept(shape, batch, model, numbers)
        kept = once + shape.layers * states + head
        # In float32 a layer's input is among what it keeps, too.
        own = states if numbers.element == FLOAT else 0
        last = FLOAT * batch.tokens * (shape.hidden + 1)  # the last norm is done with by then
        again = kept - head - last - own + layer + _layer_on_top(shape, batch, numbers)
        return Activations(kept, max(kept - head + head_peak, again))
    layers = (shape.layers - 1) * layer_kept(shape, batch, model, numbers)
    kept = once + layers + layer_kept(shape, batch, model, numbers, first=True) + head
    on_top = max(head_peak, _layer_on_top(shape, batch, numbers))
    return Activations(kept, kept - head + on_top)


def layer_kept(
    shape: Shape, batch: MicroBatch, model: ModelConfig, numbers: Numbers, *, first: bool = False
) -> int:
    """Bytes that a layer keeps. The first one's input needs no gradient, unless layers are computed again."""
    tokens, e = batch.tokens, numbers.element
    norm = FLOAT * tokens * (shape.hidden + 1)
    total = norm if first else 2 * norm
    total += 3 * e * tokens * shape.intermediate
    total += _attention(shape, batch, numbers)
    if shape.head_norms:
        heads = shape.heads + (0 if first and "k_proj" not in model.lora_targets else shape.kv_heads)
        total += FLOAT * tokens * heads * (shape.head_dim + 1)
    return total + _lora(shape, batch, model, numbers, first=first)


def _attention(shape: Shape, batch: MicroBatch, numbers: Numbers) -> int:
    """Queries, keys, values, output, the logarithm of the softmax's sum, and the mask as numbers."""
    e, wide, heads = numbers.element, shape.queries, shape.heads
    total = 0
    length = batch.shared + batch.width
    keys = wide if shape.heads != shape.kv_heads or batch.shared == 0 else shape.keys
    if batch.shared:
        total += e * batch.tokens * shape.queries  # a part of them, which keeps the whole
        if shape.heads == shape.kv_heads:
            total += 2 * e * batch.tokens * shape.keys  # as do its keys and values
        else:
            total += 2 * e * batch.shared * wide
        total += batch.shared * (e * wide + FLOAT * heads)
    total += batch.rows * batch.width * (2 * e * wide + FLOAT * heads)
    total += 2 * e * batch.rows * length * keys
    if batch.masked:
        total += e * batch.rows * batch.width * length
    return total


def _lora(shape: Shape, batch: MicroBatch, model: ModelConfig, numbers: Numbers, *, first: bool) -> int:
    """Inputs of both matrices of each target, and dropout's masks."""
    if model.lora_r == 0:
        return 0
    total, shared_inputs = 0, set()
    for name in model.lora_targets:
        width = shape.linears[name][0]
        total += FLOAT * batch.tokens * model.lora_r
        source = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}.get(name, name)
        if model.lora_dropout == 0 and numbers.element == FLOAT and source in shared_inputs:
            continue  # the same tensor as another target's
        shared_inputs.add(source)
        total += FLOAT * batch.tokens * width
        if model.lora_dropout > 0 and not (first and source == "q_proj"):
            total += (1 if numbers.fused_dropout else FLOAT) * batch.tokens * width
    return total


def _once(shape: Shape, batch: MicroBatch, numbers: Numbers) -> int:
    """What all layers share, and the last norm."""
    rotary = 2 * numbers.element * batch.tokens * shape.head_dim
    places = INDEX * (2 * batch.rows * batch.width + batch.tokens)
    visible = batch.rows * batch.width * (batch.shared + batch.width)  # as bool
    last = FLOAT * batch.tokens * (shape.hidden + 1)
    return rotary + places + visible + last


def _head(shape: Shape, batch: MicroBatch, numbers: Numbers) -> tuple[int, int]:
    """What the loss keeps, and the most that it takes."""
    e, rows = numbers.element, batch.predicted
    candidates = rows * batch.choices
    table = candidates * (INDEX + 1)
    if batch.columns is None:
        numbers_of = rows * shape.vocabulary
        kept = FLOAT * numbers_of + table
        forward = e * numbers_of + (FLOAT * numbers_of if e < FLOAT else 0) + kept + 3 * FLOAT * candidates
        backward = 3 * FLOAT * numbers_of + table
        return kept, max(forward, backward)
    weights = e * batch.columns * shape.hidden
    kept = weights + candidates * (FLOAT + INDEX + 1)
    on_top = rows * batch.columns * e + candidates * 3 * FLOAT
    return kept, kept + 2 * on_top


def _layer_on_top(shape: Shape, batch: MicroBatch, numbers: Numbers) -> int:
    """What the backward pass of a layer takes beside what is kept: gradients of the MLP's wide products."""
    e = numbers.element
    return e * batch.tokens * (3 * shape.intermediate + 2 * shape.hidden)
