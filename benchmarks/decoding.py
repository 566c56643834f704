"""Constrained beam search: bearray against `transformers.generate`, and both against the prompts alone.

    python benchmarks/decoding.py            # about five minutes of one core
    python benchmarks/decoding.py --quick    # under a minute: fewer users, one turn

Setting: a Llama of 8 layers and width 512 with random weights, a byte-level BPE of 8,192 tokens, Book
titles as the catalogue (with `--data-dir` or BEARRAY_DATA; else titles made up here, and the result says
so), prompts of 4 to 10 titles, beam width 10. `generate` gets a dictionary trie. "Prefill" is one forward
pass over the prompts. Each contender runs at the batch size that was fastest for it in a first round; then
all take turns, and medians over the turns are reported. Lists are compared, too: a faster wrong answer
would show.

Time is the process's CPU time on one thread (wall time is recorded beside it): what it would take on an idle
core, and steadier than wall time where other work shares the machine. Still, only ratios within a turn count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from bearray.backbones.bigrec import BigRec
from bearray.backbones.bpe import train_tokenizer
from bearray.data import clean_title, open_dataset
from bearray.data.prompts import DOMAINS
from bearray.decoding import constrained_beam_search
from bearray.forward import use_tree_attention
from bearray.trie import TokenTrie

BEAM_WIDTH = 10
BATCH_SIZES = {"prefill": (1, 2, 4, 8), "generate": (2, 4, 8), "bearray": (8, 16, 32)}


def book_titles(data_dir: str | None) -> tuple[str, list[str]]:
    """(where the titles are from, distinct titles)."""
    folder = Path(data_dir or os.environ.get("BEARRAY_DATA", "data")) / "book"
    if (folder / "items.parquet").exists():
        titles = [clean_title(t) for t in open_dataset(folder).items["title"]]
        return "Book", sorted({t for t in titles if t})
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(4000)]
    series = [" ".join(rng.choices(words, k=rng.randint(1, 4))).title() for _ in range(2500)]
    titles = {
        f"{rng.choice(series)}: {' '.join(rng.choices(words, k=rng.randint(1, 6)))}" for _ in range(6300)
    }
    return "synthetic", sorted(titles)


def make_prompts(
    titles: list[str], users: int
) -> tuple[PreTrainedTokenizerFast, list[list[int]], list[list[int]]]:
    """(tokenizer, prompts, catalogue as tokens)."""
    tokenizer = train_tokenizer([f'"{t}"' for t in titles], 8192)
    backbone = BigRec(tokenizer, DOMAINS["book"])
    rng = random.Random(1)
    prompts = backbone.encode_prompts([rng.sample(titles, rng.randint(4, 10)) for _ in range(users)])
    return tokenizer, prompts, backbone.encode_answers(titles)


def make_setting(titles: list[str], users: int) -> tuple[PreTrainedModel, list[list[int]], list[list[int]]]:
    """(random model, prompts, catalogue as tokens)."""
    tokenizer, prompts, catalogue = make_prompts(titles, users)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), prompts, catalogue


def shared_start(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with."""
    columns = [len(set(column)) for column in zip(*prompts, strict=False)]
    return next((i for i, different in enumerate(columns) if different > 1), len(columns))


def left_padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


class Contenders:
    """Each decodes all users, longest prompts first, `batch_size` at a time, and returns lists of titles."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], catalogue: list[list[int]]) -> None:
        self.model = model
        # As models are opened for decoding; for `generate` it is the library's own SDPA.
        assert use_tree_attention(model, model.device)
        self.eos = int(model.config.eos_token_id)
        self.prompts = sorted(prompts, key=len, reverse=True)
        self.trie = TokenTrie.from_sequences(catalogue)
        self.longest = max(map(len, catalogue))
        self.root: dict = {}
        for title in catalogue:
            node = self.root
            for token in [*title, self.eos]:
                node = node.setdefault(token, {})

    def batches(self, users: int, batch_size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        chosen = self.prompts[:: max(1, len(self.prompts) // users)][:users]
        parts = [left_padded(chosen[i : i + batch_size], self.eos) for i in range(0, len(chosen), batch_size)]
        return [(ids.to(self.model.device), mask.to(self.model.device)) for ids, mask in parts]

    def prefill(self, users: int, batch_size: int) -> None:
        with torch.inference_mode():
            for ids, mask in self.batches(users, batch_size):
                self.model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)

    def generate(self, users: int, batch_size: int, normalize: str) -> list[list[tuple[int, ...]]]:
        lists = []
        for ids, mask in self.batches(users, batch_size):
            width = ids.shape[1]

            def allowed(_: int, sentence: torch.Tensor, width: int = width) -> list[int]:
                node = self.root
                for token in sentence[width:].tolist():
                    node = node.get(token, {})
                return list(node) or [self.eos]

            out = self.model.generate(
                input_ids=ids, attention_mask=mask, prefix_allowed_tokens_fn=allowed, num_beams=BEAM_WIDTH,
                num_return_sequences=BEAM_WIDTH, do_sample=False, early_stopping=False, length_penalty=0.0,
                renormalize_logits=normalize == "trie", max_new_tokens=self.longest + 2,
            )  # fmt: skip
            rows = [row[: row.index(self.eos)] for row in ([*r, self.eos] for r in out[:, width:].tolist())]
            lists += [
                [tuple(row) for row in rows[i : i + BEAM_WIDTH]] for i in range(0, len(rows), BEAM_WIDTH)
            ]
        return lists

    def bearray(self, users: int, batch_size: int, normalize: str) -> list[list[tuple[int, ...]]]:
        lists = []
        for ids, mask in self.batches(users, batch_size):
            result = constrained_beam_search(
                self.model, ids, mask, self.trie, beam_width=BEAM_WIDTH, normalize=normalize
            )
            lists += [[tuple(title) for title in row] for row in result.sequences]
        return lists


def timed(run: Callable[[], object]) -> tuple[float, float, object]:
    """(CPU seconds, wall seconds, answer)."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = run()
    return time.process_time() - cpu, time.perf_counter() - wall, answer


def measure(users: int, repeats: int, data_dir: str | None) -> dict:
    source, titles = book_titles(data_dir)
    contenders = Contenders(*make_setting(titles, users))
    runs: dict[str, Callable[[int, int], object]] = {"prefill": contenders.prefill}
    for normalize in ("trie", "full"):
        for name in ("generate", "bearray"):
            method = getattr(contenders, name)
            runs[f"{name} {normalize}"] = lambda u, b, m=method, n=normalize: m(u, b, n)

    best: dict[str, int] = {}
    for name, run in runs.items():
        if name == "generate full":  # the same forward passes as with the other normaliser
            best[name] = best["generate trie"]
            continue
        probe = min(users, 8) if name.startswith("generate") else users
        sizes = [b for b in BATCH_SIZES[name.split()[0]] if b <= probe]
        times = {b: timed(lambda b=b, r=run, p=probe: r(p, b))[0] for b in sizes}
        best[name] = min(times, key=times.__getitem__)
        shown = ", ".join(f"{b}: {t:.2f} s" for b, t in times.items())
        print(f"{name}: batch of {best[name]} ({shown})", flush=True)

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    walls: dict[str, list[float]] = {name: [] for name in runs}
    answers: dict[str, object] = {}
    for turn in range(repeats):
        for name, run in runs.items():
            cpu, wall, answers[name] = timed(lambda n=name, r=run: r(users, best[n]))
            seconds[name].append(cpu)
            walls[name].append(wall)
        shown = ", ".join(f"{n} {s[-1] / users:.4f}" for n, s in seconds.items())
        print(f"turn {turn + 1}: {shown} CPU s a user", flush=True)

    def ratio(a: str, b: str) -> float:
        return round(statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True)), 2)

    def same_lists(normalize: str) -> int:
        ours, theirs = answers[f"bearray {normalize}"], answers[f"generate {normalize}"]
        return sum(set(a) == set(b) for a, b in zip(ours, theirs, strict=True))  # type: ignore[call-overload]

    lengths = [len(p) for p in contenders.prompts]
    shared = shared_start(contenders.prompts)
    return {
        "titles": source,
        "catalogue": len(titles),
        "trie_nodes": len(contenders.trie),
        "users": users,
        "prompt_tokens": {
            "min": min(lengths),
            "mean": round(sum(lengths) / users, 1),
            "max": max(lengths),
            "shared": shared,
        },
        "beam_width": BEAM_WIDTH,
        "repeats": repeats,
        "batch_size": best,
        "cpu_seconds_per_user": {n: round(statistics.median(s) / users, 4) for n, s in seconds.items()},
        "all_cpu_seconds": {n: [round(x, 2) for x in s] for n, s in seconds.items()},
        "all_wall_seconds": {n: [round(x, 2) for x in s] for n, s in walls.items()},
        "times_faster_than_generate": {n: ratio(f"generate {n}", f"bearray {n}") for n in ("trie", "full")},
        "times_the_prefill": {n: ratio(f"bearray {n}", "prefill") for n in ("trie", "full")},
        "users_with_the_same_list": {n: same_lists(n) for n in ("trie", "full")},
        "machine": {
            "cpu": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def as_markdown(result: dict) -> str:
    seconds, size = result["cpu_seconds_per_user"], result["batch_size"]
    lines = [
        f"Decoding on CPU: {result['users']} users, {result['titles']} titles ({result['catalogue']:,}), "
        f"prompts of {result['prompt_tokens']['mean']:.0f} tokens on average, of which the first "
        f"{result['prompt_tokens']['shared']} are the template's (bearray computes them once a batch; the "
        "prefill and `generate` for every user), beam width "
        f"{result['beam_width']}, Llama of 8 layers and width 512 with random weights. CPU time on "
        f"{result['machine']['threads']} thread, median of {result['repeats']} turns. Load average "
        f"{result['machine']['load']} on {result['machine']['cores']} cores at the end: the ratios count, "
        "not the seconds.",
        "",
        "| | batch | CPU s per user | against `generate` | against the prefill alone | same lists |",
        "|---|---:|---:|---:|---:|---:|",
        f"| prefill alone | {size['prefill']} | {seconds['prefill']:.3f} | | 1.00 | |",
    ]
    for n in ("trie", "full"):
        lines += [
            f'| `generate`, "{n}" | {size[f"generate {n}"]} | {seconds[f"generate {n}"]:.3f} | 1.0 '
            f"| {seconds[f'generate {n}'] / seconds['prefill']:.1f} | |",
            f'| bearray, "{n}" | {size[f"bearray {n}"]} | {seconds[f"bearray {n}"]:.3f} '
            f"| {result['times_faster_than_generate'][n]:.1f} x faster | "
            f"{result['times_the_prefill'][n]:.2f} "
            f"| {result['users_with_the_same_list'][n]} of {result['users']} |",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 users, one turn; prints, writes nothing")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-dir", help="folder that holds book/ (default: BEARRAY_DATA or data)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    users, repeats = (8, 1) if options.quick else (options.users, options.repeats)
    result = measure(users, repeats, options.data_dir)
    print(as_markdown(result))
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "decoding-cpu.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "decoding-cpu.md").write_text(as_markdown(result))


if __name__ == "__main__":
    main()
