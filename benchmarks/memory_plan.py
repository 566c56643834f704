"""The memory that `bearray plan` computes, against what real training steps take.

    python benchmarks/memory_plan.py                 # CPU, a minute or two; writes
    results/memory-plan-cpu.{json,md} python benchmarks/memory_plan.py --cuda          # one GPU: small
    shapes, and presets' own where they fit

A step is the project's own (`TrainStep`, forward and backward over one micro-batch, with LoRA and its
dropout) on random weights and a made-up catalogue. On CPU, memory is every allocation of a tensor as
PyTorch's profiler records it, which is exact and the same each time; on CUDA it is
`torch.cuda.max_memory_allocated`. The estimate is given the micro-batch's true sizes (rows, tokens, answers,
columns): what is compared is the model of memory, not the lengths that a plan assumes.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bearray.backbones.lora import add_lora
from bearray.batching import Answer, Example, TokenBatch, collate
from bearray.config import ModelConfig, ObjectiveConfig
from bearray.forward import use_tree_attention
from bearray.objectives import at_least, make_objective
from bearray.objectives.tokens import valid_next_tokens
from bearray.planning.activations import MicroBatch, Numbers, activations
from bearray.planning.shapes import SHAPES, Shape
from bearray.step import TrainStep
from bearray.trie import TokenTrie

EOS, FIRST, TITLES = 2, 300, 600
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
ALL_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step to be measured."""

    family: str = "llama"
    hidden: int = 128
    intermediate: int = 352
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 4_000
    objective: str = "sft"
    checkpointing: bool = False
    rows: int = 8
    """Windows of the micro-batch."""
    shared: int = 30
    prompt: int = 100
    answer: int = 13
    others: int = 0
    """Answers of each window beside its target."""
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    dtype: str = "float32"
    preset: str | None = None
    """The base model's sizes are those of a preset."""

    @property
    def shape(self) -> Shape:
        if self.preset is not None:
            return SHAPES[self.preset]
        size = self.hidden // self.heads
        return Shape(
            self.family, self.hidden, self.intermediate, self.layers, self.heads, self.kv_heads, size,
            self.vocabulary, True, self.family == "qwen2", self.family == "qwen3",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Bytes of activations at the peak."""

    case: Case
    estimated: int
    measured: int
    batch: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.estimated / self.measured


SMALL = Case()
CASES = (
    SMALL,
    replace(SMALL, objective="bear"),
    replace(SMALL, checkpointing=True),
    replace(SMALL, objective="bear", checkpointing=True, rows=16, layers=8),
    replace(SMALL, family="qwen2"),
    replace(SMALL, family="qwen2", objective="bear", kv_heads=4, shared=0),
    replace(SMALL, family="qwen3", hidden=256, intermediate=512),
    replace(SMALL, family="qwen3", checkpointing=True, rows=4),
    replace(SMALL, vocabulary=32_000, layers=2),
    replace(SMALL, vocabulary=32_000, checkpointing=True, layers=8),
    replace(SMALL, targets=ALL_LAYERS),
    replace(SMALL, targets=ALL_LAYERS, dropout=0.0, objective="bear", checkpointing=True),
    replace(SMALL, others=3, objective="sdpo"),
    replace(SMALL, others=3, objective="sdpo", checkpointing=True, rows=4),
    replace(SMALL, rows=1, prompt=200),
    replace(SMALL, rows=16, prompt=200, shared=10, intermediate=128, objective="bear"),
    replace(SMALL, dtype="bfloat16"),
    replace(SMALL, dtype="bfloat16", objective="bear", checkpointing=True),
)
CUDA_CASES = tuple(
    replace(SMALL, preset=preset, rows=16, shared=140, prompt=244, objective=objective, dtype="bfloat16",
            checkpointing=recompute)
    for preset in ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.2-3b")
    for objective in ("sft", "bear")
    for recompute in (False, True)
)  # fmt: skip


def build(case: Case, device: torch.device) -> nn.Module:
    """A model with random weights and an adapter, ready to train."""
    shape = case.shape
    family = "qwen2" if shape.biases else "qwen3" if shape.head_norms else "llama"
    config_class, model_class = FAMILIES[family]
    config = config_class(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
        vocab_size=shape.vocabulary, tie_word_embeddings=shape.tied, pad_token_id=0, bos_token_id=1,
        eos_token_id=EOS,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        base = model_class(config).to(getattr(torch, case.dtype))
    assert use_tree_attention(base, device)
    settings = ModelConfig(lora_dropout=case.dropout, lora_targets=case.targets)
    model: Any = add_lora(base, settings).train()
    if case.objective == "sdpo":
        from bearray.backbones.reference import add_reference

        add_reference(model)
    if case.checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def windows(case: Case) -> tuple[TokenBatch, TokenTrie]:
    """A micro-batch of windows of one length, and the catalogue."""
    rng, vocabulary = random.Random(0), case.shape.vocabulary

    def tokens(count: int) -> list[int]:
        return [rng.randrange(FIRST + 3, vocabulary) for _ in range(count)]

    titles = [[3 + i % FIRST, *tokens(case.answer - 2)] for i in range(TITLES)]
    trie = TokenTrie.from_sequences(titles)

    def answer(title: int) -> Answer:
        (path,) = trie.path_nodes([titles[title]])
        return Answer([*titles[title], EOS], [int(n) for n in path], title)

    start, examples, others = tokens(case.shared), [], []
    for row in range(case.rows):
        own = answer(row)
        prompt = [*start, 3 + row, *tokens(case.prompt - case.shared - 1)]
        examples.append(Example(prompt, own.tokens, own.nodes, own.title))
        others.append([answer(case.rows + row * case.others + k) for k in range(case.others)])
    branching = make_objective(ObjectiveConfig(name=case.objective)).positions == "branching"
    return collate(examples, 0, others, choices=trie if branching else None), trie


def sizes(batch: TokenBatch, trie: TokenTrie, candidates_only: bool) -> MicroBatch:
    """The micro-batch as the plan describes one."""
    candidates, valid = valid_next_tokens(trie, batch.nodes, EOS)
    layout = batch.layout
    return MicroBatch(
        rows=len(layout.grid),
        shared=layout.shared,
        width=layout.grid.shape[1],
        tokens=batch.tokens,
        predicted=len(batch.targets),
        choices=candidates.shape[1],
        columns=len(candidates[valid].unique()) if candidates_only else None,
        masked=layout.shared > 0 or layout.has_answers_aside,
    )


def run(case: Case, device: torch.device) -> Outcome:
    """Measure a step, and estimate it."""
    model = build(case, device)
    objective = make_objective(ObjectiveConfig(name=case.objective))
    batch, trie = windows(case)
    described = sizes(batch, trie, objective.candidates_only)
    batch, trie = batch.to(device), trie.to(device)
    step = TrainStep(model, objective, trie, EOS)

    def work() -> None:
        output = step(batch)
        (output.total / at_least(output.weight)).backward()
        model.zero_grad(set_to_none=True)

    work()  # whatever is made once
    numbers = Numbers(element=getattr(torch, case.dtype).itemsize, fused_dropout=device.type == "cuda")
    settings = ModelConfig(lora_dropout=case.dropout, lora_targets=case.targets)
    estimate = activations(case.shape, described, settings, numbers, checkpointing=case.checkpointing)
    gradients = 4 * case.shape.adapter(settings.lora_r, case.targets)  # they are there at the end
    measured = peak_cuda(work, device) if device.type == "cuda" else peak_cpu(work)
    return Outcome(case=case, estimated=estimate.peak + gradients, measured=measured, batch=asdict(described))


def peak_cpu(work: Any) -> int:
    """Bytes of tensors at most, above what there was before."""
    gc.collect()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        found = json.loads(trace.read_text())["traceEvents"]
    events = sorted((e for e in found if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    totals = [event["args"]["Total Allocated"] for event in events]
    return int(max(totals) - (totals[0] - events[0]["args"]["Bytes"]))


def peak_cuda(work: Any, device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def as_markdown(outcomes: list[Outcome], where: str) -> str:
    ratios = [o.ratio for o in outcomes]
    lines = [
        f"Memory of a training step above weights and optimiser, as computed by `bearray plan` and as "
        "measured on "
        f"{where}; computed over measured is {min(ratios):.2f} to {max(ratios):.2f}.",
        "",
        "| model | layers | vocabulary | type | objective | checkpointing | windows | tokens | LoRA on | "
        "dropout | "
        "computed, MB | measured, MB | ratio |",
        "| --- | ---: | ---: | --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for o in outcomes:
        c, shape = o.case, o.case.shape
        name = shape.name if c.preset else f"{c.family}, {shape.hidden} wide"
        lora = "all layers" if len(c.targets) > 2 else "query, value"
        lines.append(
            f"| {name} | {shape.layers} | {shape.vocabulary:,} | {c.dtype} | {c.objective} | "
            f"{'yes' if c.checkpointing else 'no'} | {c.rows} | {o.batch['tokens']:,} | {lora} | "
            f"{c.dropout:g} | "
            f"{o.estimated / 1e6:,.1f} | {o.measured / 1e6:,.1f} | {o.ratio:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuda", action="store_true", help="measure on the first GPU")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if options.cuda else "cpu")
    outcomes = []
    for case in (*CASES, *CUDA_CASES) if options.cuda else CASES:
        outcomes.append(run(case, device))
        print(f"{outcomes[-1].ratio:.3f}  {case}", flush=True)
    where = torch.cuda.get_device_name(0) if options.cuda else "a CPU (PyTorch's profiler)"
    text = as_markdown(outcomes, where)
    print(text)
    found = [{**asdict(o), "ratio": round(o.ratio, 4)} for o in outcomes]
    content = {"where": where, "torch": torch.__version__, "cases": found}
    name = f"memory-plan-{'cuda' if options.cuda else 'cpu'}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
