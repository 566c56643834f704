"""Catalogues of 6,000, 100,000 and 1,000,000 titles: building, saving and loading the trie, and what decoding
over it costs.

    python benchmarks/catalogue.py            # about six minutes of one core, 3 GB of memory
    python benchmarks/catalogue.py --quick    # 6,000 and 100,000 titles, one turn; writes nothing

Titles are made up as token ids, since real catalogues of this size cannot be passed around. Lengths are
log-normal (mean about 12, 2 to 48). Tokens are drawn from a vocabulary of 32,768 by a power law, flatter
for the first token than for later ones, and every fourth title is a variant of another one: it begins with
some of its tokens, as volumes, sizes and colours do. The constants were chosen so that 6,000 titles branch
like real ones: the result shows their root's children, branching tokens a title and so on beside those of
Book and Toy, measured in the same way with a BPE of 8,192 trained on each. All titles differ; smaller
catalogues are the beginning of the largest.

Decoding: a Llama of 8 layers and width 512 (that of `decoding.py`), weights random but for a bias of the
output projection, the log-frequency of each token: like a trained model, it goes where many titles are.
Prompts of 120 to 240 random tokens, the first 40 the same, beam width 10. The catalogues take turns; a
ratio is the median over the turns of CPU time over that of 6,000 titles in the same turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bearray.decoding import constrained_beam_search
from bearray.ragged import TokenLists
from bearray.trie import TokenTrie

BEAM_WIDTH = 10
VOCABULARY = 32_768
EOS = 0
LONGEST = 48
SIZES = (6_000, 100_000, 1_000_000)
REAL = {
    "Book": {"tokens_a_title": 11.2, "nodes_a_title": 10.2, "root_children": 971, "branching_tokens": 2.2},
    "Toy": {"tokens_a_title": 10.6, "nodes_a_title": 8.3, "root_children": 701, "branching_tokens": 3.0},
}
"""6,000 titles drawn from each."""


def power_law(rng: np.random.Generator, count: int, exponent: float, offset: float) -> np.ndarray:
    """[count] token ids: rank k with probability about (k + offset) ** -exponent."""
    rank = offset * (rng.random(count) ** (-1 / (exponent - 1)) - 1)
    return 1 + (rank % (VOCABULARY - 1)).astype(np.int32)


def make_titles(count: int, seed: int = 0) -> TokenLists:
    """Different titles, as the module's docstring says."""
    rng = np.random.default_rng(seed)
    rows = count * 11 // 10  # some are equal
    lengths = np.exp(rng.normal(2.3, 0.6, rows)).round().clip(2, LONGEST).astype(np.int64)
    table = np.empty((rows, LONGEST), dtype=np.int32)
    table[:, 0] = power_law(rng, rows, 1.35, 3.0)
    for place in range(1, LONGEST):
        # The ranks' tokens shift with the place: frequent words differ, but for each place they are the same.
        table[:, place] = 1 + (power_law(rng, rows, 1.6, 1.0) + 97 * place) % (VOCABULARY - 1)
    for row in np.flatnonzero(rng.random(rows) < 0.25)[1:]:
        other = int(rng.integers(row))
        same = int(rng.integers(1, lengths[other] + 1))
        table[row, :same] = table[other, :same]
        lengths[row] = max(lengths[row], same)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    titles = TokenLists(table[np.arange(LONGEST) < lengths[:, None]], starts)
    ends = TokenTrie.from_sequences(titles).terminal.numpy()
    return titles.take(np.sort(ends[ends >= 0])[:count])


def shape_of(trie: TokenTrie) -> dict[str, Any]:
    """How a trie branches, over its distinct titles."""
    children = trie.child_count(torch.arange(len(trie))).numpy()
    branching = (children > 1).astype(np.int64)
    depth, parent = trie.depth.numpy(), trie.parent.numpy()
    level = np.searchsorted(depth, np.arange(trie.max_depth + 2))
    for d in range(1, trie.max_depth + 1):
        here = slice(level[d], level[d + 1])
        branching[here] += branching[parent[here]]
    ends = np.flatnonzero(trie.terminal.numpy() >= 0)
    return {
        "titles": len(ends),
        "tokens_a_title": round(float(depth[ends].mean()), 1),
        "nodes": len(trie),
        "nodes_a_title": round(len(trie) / len(ends), 1),
        "root_children": int(children[0]),
        "most_children_below": int(children[1:].max()),
        "branching_tokens": round(float(branching[ends].mean()), 1),
        "longest": trie.max_depth,
        "trie_mb": round(sum(a.nbytes for a in trie.arrays().values()) / 1e6, 1),
    }


def highest_memory(run: Callable[[], object]) -> float:
    """MB that a call allocates at most, beyond what was there before; slower than the call alone."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """(CPU seconds, wall seconds, answer)."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = run()
    return time.process_time() - cpu, time.perf_counter() - wall, answer


def build_and_keep(titles: TokenLists, folder: Path) -> tuple[TokenTrie, dict[str, Any]]:
    """A loaded trie, and what building, saving and loading it took."""
    lists = list(titles)  # what a tokenizer returns
    build, build_wall, trie = timed(lambda: TokenTrie.from_sequences(lists))
    memory = highest_memory(lambda: TokenTrie.from_sequences(lists))
    path = folder / str(len(titles))
    save = timed(lambda: trie.save(path))[0]
    load, _, loaded = timed(lambda: TokenTrie.load(path))
    facts = {
        **shape_of(loaded),
        "build_cpu_s": round(build, 3),
        "build_wall_s": round(build_wall, 3),
        "build_memory_mb": round(memory),
        "save_cpu_s": round(save, 3),
        "load_cpu_s": round(load, 3),
        "file_mb": round(path.stat().st_size / 1e6, 1),
    }
    return loaded, facts


def make_model(titles: TokenLists) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=2048,
        bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    count = np.bincount(titles.tokens, minlength=VOCABULARY) + 1.0
    count[EOS] = len(titles)
    head = torch.nn.Linear(512, VOCABULARY)
    with torch.no_grad():
        head.weight.copy_(3 * model.lm_head.weight)  # else all users would walk the same few prefixes
        head.bias.copy_(torch.from_numpy(np.log(count / count.sum())))
    model.lm_head = head
    return model


def make_prompts(users: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(2)
    lengths = np.sort(rng.integers(120, 241, users))[::-1]
    ids = torch.full((users, int(lengths[0])), EOS)
    mask = torch.zeros_like(ids)
    start = rng.integers(1, VOCABULARY, 40)
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.from_numpy(
            np.concatenate([start, rng.integers(1, VOCABULARY, length - 40)])
        )
        mask[row, -length:] = 1
    return ids, mask


def measure_decoding(
    model: PreTrainedModel, tries: dict[int, TokenTrie], users: int, turns: int
) -> dict[str, Any]:
    ids, mask = make_prompts(users)

    def decode(size: int, normalize: Any) -> Any:
        return constrained_beam_search(
            model, ids, mask, tries[size], beam_width=BEAM_WIDTH, normalize=normalize, batch_size=users
        )

    def prefill() -> None:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)

    kinds = [(size, normalize) for normalize in ("trie", "full") for size in tries]
    results = {kind: decode(*kind) for kind in kinds}  # also the warm-up
    seconds: dict[Any, list[float]] = {kind: [] for kind in ["prefill", *kinds]}
    for turn in range(turns):
        seconds["prefill"].append(timed(prefill)[0])
        for kind in kinds:
            seconds[kind].append(timed(lambda k=kind: decode(*k))[0])
        shown = ", ".join(f"{kind} {s[-1] / users:.4f}" for kind, s in seconds.items())
        print(f"turn {turn + 1}, CPU s a user: {shown}", flush=True)
    smallest = min(tries)

    def ratio(kind: Any, other: Any) -> float:
        return round(statistics.median(a / b for a, b in zip(seconds[kind], seconds[other], strict=True)), 3)

    return {
        "users": users,
        "turns": turns,
        "prefill_cpu_s_a_user": round(statistics.median(seconds["prefill"]) / users, 4),
        "decoding": {
            normalize: {
                str(size): {
                    "cpu_s_a_user": round(statistics.median(seconds[size, normalize]) / users, 4),
                    "times_the_smallest": ratio((size, normalize), (smallest, normalize)),
                    "times_the_prefill": ratio((size, normalize), "prefill"),
                    "forward_passes": results[size, normalize].forward_passes,
                    "nodes_scored_a_user": round(results[size, normalize].expanded.float().mean().item(), 1),
                    "all_cpu_s": [round(s, 2) for s in seconds[size, normalize]],
                }
                for size in tries
            }
            for normalize in ("trie", "full")
        },
    }


def measure(sizes: tuple[int, ...], users: int, turns: int) -> dict[str, Any]:
    titles = make_titles(max(sizes))
    tries, facts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            tries[size], facts[str(size)] = build_and_keep(titles.take(np.arange(size)), Path(folder))
            print(size, facts[str(size)], flush=True)
        decoding = measure_decoding(make_model(titles), tries, users, turns)
    return {
        "catalogues": facts,
        "real_catalogues_of_6000": REAL,
        "beam_width": BEAM_WIDTH,
        "vocabulary": VOCABULARY,
        **decoding,
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


def as_markdown(result: dict[str, Any]) -> str:
    catalogues, machine = result["catalogues"], result["machine"]
    lines = [
        f"Catalogues of made-up titles (`benchmarks/catalogue.py` says how they are made), a vocabulary of "
        f"{result['vocabulary']:,}. CPU time on {machine['threads']} thread; load average {machine['load']} "
        f"on {machine['cores']} cores at the end.",
        "",
        "| titles | tokens a title | branching tokens a title | root's children | most children below "
        "| nodes | build, s | memory while building, MB | trie, MB | save, s | load, s |",
        "|" + "---:|" * 11,
    ]
    for c in catalogues.values():
        lines.append(
            f"| {c['titles']:,} | {c['tokens_a_title']} | {c['branching_tokens']} | {c['root_children']:,} "
            f"| {c['most_children_below']:,} | {c['nodes']:,} | {c['build_cpu_s']} "
            f"| {c['build_memory_mb']} | {c['trie_mb']} | {c['save_cpu_s']} | {c['load_cpu_s']} |"
        )
    real = "; ".join(
        f"{name}: {r['tokens_a_title']} tokens and {r['nodes_a_title']} nodes a title, "
        f"{r['branching_tokens']} branching tokens, {r['root_children']} children of the root"
        for name, r in result["real_catalogues_of_6000"].items()
    )
    lines += [
        "",
        f"Real catalogues, 6,000 titles of each, vocabulary of 8,192: {real}.",
        "",
        f"Decoding: {result['users']} users in one batch, beam width {result['beam_width']}, Llama of 8 "
        f"layers and width 512, prompts of 120 to 240 tokens; medians of {result['turns']} turns. The "
        f"prompts alone: {result['prefill_cpu_s_a_user']:.3f} CPU s a user.",
        "",
        "| | titles | CPU s a user | against 6,000 titles | against the prompts alone | forward passes "
        "| nodes scored a user |",
        "|---|" + "---:|" * 6,
    ]
    for normalize, by_size in result["decoding"].items():
        for size, d in by_size.items():
            lines.append(
                f'| "{normalize}" | {int(size):,} | {d["cpu_s_a_user"]:.4f} | {d["times_the_smallest"]:.2f} '
                f"| {d['times_the_prefill']:.2f} | {d['forward_passes']} | {d['nodes_scored_a_user']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="6,000 and 100,000 titles, one turn; only prints"
    )
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    result = measure(
        SIZES[:2] if options.quick else SIZES, options.users, 1 if options.quick else options.turns
    )
    print(as_markdown(result))
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "catalogue-cpu.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "catalogue-cpu.md").write_text(as_markdown(result))


if __name__ == "__main__":
    main()
