"""Training steps: bearray against the released way of doing them, and its objectives against its own SFT.

    python benchmarks/training.py                                 # CPU, about ten minutes of one core
    python benchmarks/training.py --shape medium --vocabulary 16384
    python benchmarks/training.py --quick                         # one turn of few windows; writes nothing
    python benchmarks/training.py --device cuda --shape llama-3.2-1b --windows 256 --micro-batch 16

A pass over the same windows, forward and backward, with LoRA on the query and value projections. The released
way (`released_step.py`) takes windows in random order, pads rows, and makes logits at all positions over the
whole vocabulary; bearray takes the micro-batches of its own plan. Random weights in the shape of a Llama with
Llama 3's vocabulary of 128,256: on a small model nearly all weights are then in the output projection.
"medium" with 16,384 has a fifth of them there, as Llama-3.2-1B has. Book titles (with `--data-dir` or
BEARRAY_DATA; else made-up ones, and the result says so); prompts of 4 to 10 titles from a tokenizer that was
trained on prompts and titles.

All contenders take turns, in another order each turn, and ratios are medians of ratios within a turn, with
the lowest and the highest turn beside them. On CPU, time is the process's CPU time on one thread. Memory is
each contender's own process, at its peak above what it held when model and windows were there. Losses are
compared, too: a faster wrong answer would show.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from decoding import book_titles
from peft import LoraConfig, get_peft_model
from released_step import ReleasedStep
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bearray.backbones.bigrec import BigRec
from bearray.backbones.bpe import train_tokenizer
from bearray.batching import Example, collate, plan_epoch
from bearray.config import ObjectiveConfig
from bearray.data.prompts import DOMAINS, render_prompt
from bearray.forward import use_tree_attention
from bearray.objectives import at_least, make_objective
from bearray.step import TrainStep
from bearray.trie import TokenTrie

SHAPES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
              "num_attention_heads": 4, "num_key_value_heads": 4},
    "medium": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
               "num_attention_heads": 8, "num_key_value_heads": 8},
    "llama-3.2-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                     "num_attention_heads": 32, "num_key_value_heads": 8},
    "llama-3.2-3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                     "num_attention_heads": 24, "num_key_value_heads": 8},
}  # fmt: skip
DROPOUT = 0.05
CONTENDERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "released sft": ("released", {"name": "sft"}, DROPOUT),
    "released msl": ("released", {"name": "msl"}, DROPOUT),
    "released bear": ("released", {"name": "bear"}, DROPOUT),
    "sft": ("bearray", {"name": "sft"}, DROPOUT),
    "msl": ("bearray", {"name": "msl"}, DROPOUT),
    "bear": ("bearray", {"name": "bear"}, DROPOUT),
    "bear released": ("bearray", {"name": "bear", "form": "released"}, DROPOUT),
    "bear full": ("bearray", {"name": "bear", "vocabulary": "full"}, DROPOUT),
    "beam_simulation": ("bearray", {"name": "beam_simulation"}, DROPOUT),
    "beam_simulation full": ("bearray", {"name": "beam_simulation", "vocabulary": "full"}, DROPOUT),
    "sft, no dropout": ("bearray", {"name": "sft"}, 0.0),
    "bear, no dropout": ("bearray", {"name": "bear"}, 0.0),
    "beam_simulation, no dropout": ("bearray", {"name": "beam_simulation"}, 0.0),
    "beam_simulation full, no dropout": (
        "bearray", {"name": "beam_simulation", "vocabulary": "full"}, 0.0,
    ),
}  # fmt: skip
"""Name -> whose step, its objective, LoRA's dropout."""
PEERS = {"sft": "released sft", "msl": "released msl", "bear released": "released bear"}


class Setting:
    """Model, windows and catalogue, the same in every process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.micro_batch = options.micro_batch
        self.source, titles = book_titles(options.data_dir)
        rng = random.Random(1)
        histories = [rng.sample(titles, rng.randint(4, 10)) for _ in range(options.windows)]
        template = DOMAINS["book"]
        texts = [render_prompt(template, rng.sample(titles, 5)) for _ in range(500)]
        tokenizer = train_tokenizer([*texts, *(f'"{t}"' for t in titles)], 16_384)
        backbone = BigRec(tokenizer, template)
        self.catalogue = backbone.encode_answers(titles)
        self.trie = TokenTrie.from_sequences(self.catalogue)
        self.eos = backbone.eos_token_id
        targets = rng.sample(range(len(titles)), options.windows)
        paths = self.trie.path_nodes([self.catalogue[t] for t in targets])
        self.examples = [
            Example(prompt, [*self.catalogue[t], self.eos], [int(n) for n in path], t)
            for prompt, t, path in zip(backbone.encode_prompts(histories), targets, paths, strict=True)
        ]
        torch.manual_seed(0)
        config = LlamaConfig(
            **SHAPES[options.shape], vocab_size=options.vocabulary, max_position_embeddings=4096,
            tie_word_embeddings=True, bos_token_id=0, eos_token_id=self.eos, pad_token_id=self.eos,
        )  # fmt: skip
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        with self.device:
            base = LlamaForCausalLM(config).to(dtype)
        with torch.no_grad():  # else all tokens are about as probable, and wrong losses would agree
            base.lm_head.weight.mul_(5)
        assert use_tree_attention(base, self.device)
        adapter = LoraConfig(
            r=8, lora_alpha=16, lora_dropout=DROPOUT, target_modules=["q_proj", "v_proj"],
            init_lora_weights=False,
        )  # fmt: skip
        self.model = get_peft_model(base, adapter).train()
        self.trie_on_device = self.trie.to(self.device)

    @property
    def tokens(self) -> int:
        """Of all windows, as a sequence each: what both sides have to account for."""
        return sum(len(e.prompt) + len(e.answer) for e in self.examples)

    def parts(self, order: str) -> list[list[Example]]:
        """Micro-batches: by bearray's plan, or at random."""
        if order == "plan":
            lengths = [len(e.prompt) + len(e.answer) for e in self.examples]
            plan = plan_epoch(lengths, self.micro_batch, seed=0, epoch=0)
            return [[self.examples[i] for i in batch] for batch in plan]
        mixed = random.Random(2).sample(self.examples, len(self.examples))
        return [mixed[i : i + self.micro_batch] for i in range(0, len(mixed), self.micro_batch)]

    def loss(self, name: str) -> tuple[Callable[[Sequence[Example]], Tensor], list[list[Example]]]:
        """The loss of a micro-batch, and the micro-batches."""
        whose, settings, dropout = CONTENDERS[name]
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        if whose == "released":
            released = ReleasedStep(self.model, self.catalogue, self.eos, self.eos, settings["name"])
            return released, self.parts("random")
        objective = make_objective(ObjectiveConfig(**settings))
        step = TrainStep(self.model, objective, self.trie_on_device, self.eos)
        choices = self.trie if objective.positions == "branching" else None

        def loss(examples: Sequence[Example]) -> Tensor:
            output = step(collate(examples, self.eos, choices=choices).to(self.device))
            return output.total / at_least(output.weight)

        return loss, self.parts("plan")

    def run(self, name: str, micro_batches: int | None = None) -> float:
        """Forward and backward over the windows; the mean loss."""
        loss, parts = self.loss(name)
        torch.manual_seed(3)
        total = 0.0
        for part in parts[:micro_batches]:
            value = loss(part)
            value.backward()
            total += float(value.detach())
            self.model.zero_grad(set_to_none=True)
        return total / len(parts[:micro_batches])

    def timed(self, name: str) -> float:
        """Seconds of a pass: CPU time, or wall time on a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            began = time.perf_counter()
            self.run(name)
            torch.cuda.synchronize()
            return time.perf_counter() - began
        began = time.process_time()
        self.run(name)
        return time.process_time() - began

    def same_losses(self) -> dict[str, float]:
        """Largest relative difference of loss between each step and its released peer, no dropout, the same
        micro-batches."""
        worst = {}
        for ours, theirs in PEERS.items():
            differences = []
            for part in self.parts("plan")[:2]:
                values = []
                for name in (ours, theirs):
                    loss, _ = self.loss(name)
                    self.model.eval()
                    with torch.no_grad():
                        values.append(float(loss(part)))
                    self.model.train()
                differences.append(abs(values[0] - values[1]) / abs(values[1]))
            worst[ours] = max(differences)
        return worst


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes (Linux)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024


def peak_memory(setting: Setting, name: str) -> int:
    """Bytes above what was held before, at the peak of two micro-batches."""
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        setting.run(name, 2)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    setting.run(name, 2)
    return resident("VmHWM") - before


def in_own_process(name: str, options: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--memory-of", name]
    for key in ("device", "shape", "vocabulary", "windows", "micro_batch", "data_dir"):
        value = getattr(options, key)
        if value is not None:
            command += [f"--{key.replace('_', '-')}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    setting = Setting(options)
    names = list(CONTENDERS)
    print(f"{setting.tokens} tokens in {options.windows} windows", flush=True)
    differences = setting.same_losses()
    print("relative difference of loss:", {n: f"{d:.1e}" for n, d in differences.items()}, flush=True)
    for name in names:
        setting.run(name, 1)  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(options.repeats):
        for name in random.Random(turn).sample(names, len(names)):
            seconds[name].append(setting.timed(name))
        shown = ", ".join(f"{n} {s[-1]:.2f}" for n, s in seconds.items())
        print(f"turn {turn + 1}: {shown} s", flush=True)
    memory = {}
    for name in names:
        memory[name] = in_own_process(name, options)
        print(f"memory of {name}: {memory[name] / 1e6:.0f} MB", flush=True)
    on_gpu = setting.device.type == "cuda"
    return {
        "titles": setting.source,
        "catalogue": len(setting.catalogue),
        "windows": options.windows,
        "micro_batch": options.micro_batch,
        "tokens": setting.tokens,
        "tokens_of_the_longest": max(len(e.prompt) + len(e.answer) for e in setting.examples),
        "shared_start": collate(setting.examples, 0).layout.shared,
        "shape": options.shape,
        "vocabulary": options.vocabulary,
        "repeats": options.repeats,
        "seconds": {n: [round(x, 4) for x in s] for n, s in seconds.items()},
        "tokens_per_second": {n: round(setting.tokens / statistics.median(s), 1) for n, s in seconds.items()},
        "peak_bytes": memory,
        "relative_difference_of_loss": differences,
        "machine": {
            "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def spread(result: dict[str, Any], above: str, below: str) -> tuple[float, float, float]:
    """Median, lowest and highest over turns of one contender's time over another's."""
    ratios = [a / b for a, b in zip(result["seconds"][above], result["seconds"][below], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def as_markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"Training steps, forward and backward: {result['windows']} windows of {result['titles']} titles "
        f"({result['catalogue']:,}), {result['tokens'] / result['windows']:.0f} tokens each on average, of "
        f"which all prompts share the first {result['shared_start']}; micro-batches of "
        f'{result["micro_batch"]}; a Llama of shape "{result["shape"]}" with random weights and a '
        f"vocabulary of {result['vocabulary']:,}; LoRA of rank 8 on query and value, dropout {DROPOUT} "
        f"unless said. {machine['device']}, {machine['threads']} thread(s), load average {machine['load']} "
        f"at the end; median of {result['repeats']} turns, lowest and highest in brackets.",
        "",
        "| | tokens/s | against the released way | peak memory, MB | of the released way's | against SFT |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, rate in result["tokens_per_second"].items():
        peak = result["peak_bytes"][name]
        cells = ["", "", ""]
        if name in PEERS:
            faster, low, high = spread(result, PEERS[name], name)
            cells[0] = f"{faster:.1f} x [{low:.1f}, {high:.1f}]"
            cells[1] = f"{peak / result['peak_bytes'][PEERS[name]]:.3f}"
        if not name.startswith("released"):
            own = "sft, no dropout" if name.endswith("no dropout") else "sft"
            ratio, low, high = spread(result, name, own)
            cells[2] = f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| {name} | {rate:,.0f} | {cells[0]} | {peak / 1e6:,.0f} | {cells[1]} | {cells[2]} |")
    worst = max(result["relative_difference_of_loss"].values())
    lines += ["", f"Losses of both ways on the same windows differ by at most {worst:.0e} (relative)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 windows, one turn; prints, writes nothing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--vocabulary", type=int, default=128_256, help="tokens; Llama 3's unless given")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", help="folder that holds book/ (default: BEARRAY_DATA or data)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if options.quick:
        options.windows, options.repeats = 8, 1
    if options.memory_of:
        print(peak_memory(Setting(options), options.memory_of))
        return
    result = measure(options)
    print(as_markdown(result))
    if not options.quick:
        place = f"{'cpu' if options.device == 'cpu' else 'gpu'}-{options.shape}"
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"training-{place}.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / f"training-{place}.md").write_text(as_markdown(result))


if __name__ == "__main__":
    main()
