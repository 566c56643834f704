"""Constrained beam search on a GPU: bearray, `transformers.generate`, the prompts alone, the card's limits.

    python benchmarks/decoding_gpu.py --shape llama-3.2-1b      # one CUDA GPU of 24 GB or more, some minutes
    python benchmarks/decoding_gpu.py --shape tiny --device cpu # only to see that it runs

Weights are random and in bfloat16, titles and prompts those of `benchmarks/decoding.py`. The card's matrix
rate and memory bandwidth are measured first, in the same process. "Share of the matrix rate" counts the
floating-point operations that the answers need (each prompt token and each answer token that was computed,
once; no padding, nothing that is shared between users counted twice) and divides by time and measured rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from decoding import BEAM_WIDTH, Contenders, book_titles, make_prompts, shared_start
from transformers import LlamaConfig, LlamaForCausalLM

from bearray.decoding import constrained_beam_search

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 16_384},
    "llama-3.2-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
                     "vocab_size": 128_256, "tie_word_embeddings": True},
    "llama-3.2-3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                     "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
                     "vocab_size": 128_256, "tie_word_embeddings": True},
}  # fmt: skip


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Median wall time of `run`, after one run that warms up."""
    run()
    times = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def ceilings(device: torch.device) -> dict[str, float]:
    """Measured bfloat16 matrix rate [FLOP/s] and memory bandwidth [bytes/s]."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * n**3 / seconds(lambda: a @ b, device, 10)
    source = torch.empty(2**30 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {"flops": rate, "bytes": 2 * source.numel() / seconds(lambda: target.copy_(source), device, 10)}


def needed_flops(config: LlamaConfig, prompts: list[int], answers: float, shared: int) -> float:
    """Operations a user on average: projections of each computed token, and attention to what it sees.

    Args:
        prompts: tokens of each prompt. answers: answer tokens computed for a user, on average.
        shared: prompt tokens that all users have in common, computed once a batch and left out here.
    """
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    wide = config.hidden_size * head * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    weights = config.num_hidden_layers * (wide + 3 * config.hidden_size * config.intermediate_size)
    total = 0.0
    for tokens in prompts:
        seen = (tokens * (tokens + 1) - shared * (shared + 1)) / 2 + answers * tokens
        total += 2 * weights * (tokens - shared + answers)
        total += 4 * config.num_hidden_layers * config.num_attention_heads * head * seen
    return total / len(prompts)


def measure(
    shape: str, device: torch.device, users: int, batch_size: int, repeats: int, data: str | None
) -> dict:
    source, titles = book_titles(data)
    tokenizer, prompts, catalogue = make_prompts(titles, users)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=4096, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with device:
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    contenders = Contenders(model, prompts, catalogue)
    contenders.trie = contenders.trie.to(device)
    limits = ceilings(device)
    lengths = [len(p) for p in contenders.prompts]
    shared = shared_start(contenders.prompts)

    def ours(normalize: str) -> Callable[[], object]:
        return lambda: contenders.bearray(users, batch_size, normalize)

    sizes = [b for b in (4, 8, 16, 32, 64) if b <= users]
    few = min(users, 64)
    generate = {
        n: {b: seconds(lambda b=b, n=n: contenders.generate(few, b, n), device) / few for b in sizes}
        for n in ("trie", "full")
    }
    rows = {"prefill": seconds(lambda: contenders.prefill(users, batch_size), device, repeats) / users}
    extra = {}
    for n in ("trie", "full"):
        rows[f"bearray {n}"] = seconds(ours(n), device, repeats) / users
        rows[f"generate {n}"] = min(generate[n].values())
        computed = [
            constrained_beam_search(model, ids, mask, contenders.trie, beam_width=BEAM_WIDTH, normalize=n)
            for ids, mask in contenders.batches(min(users, batch_size), batch_size)
        ]
        answers = float(torch.cat([r.expanded for r in computed]).float().mean())
        need = needed_flops(config, lengths, answers, shared)
        extra[n] = {
            "answer_tokens": round(answers, 1),
            "forward_passes": computed[0].forward_passes,
            "share_of_matrix_rate": round(need / rows[f"bearray {n}"] / limits["flops"], 3),
            "times_faster_than_generate": round(rows[f"generate {n}"] / rows[f"bearray {n}"], 1),
            "times_the_prefill": round(rows[f"bearray {n}"] / rows["prefill"], 2),
            "generate_batch_size": min(generate[n], key=generate[n].__getitem__),
        }
    return {
        "shape": shape,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "titles": source,
        "users": users,
        "batch_size": batch_size,
        "prompt_tokens": round(sum(lengths) / users, 1),
        "shared_prompt_tokens": shared,
        "ms_per_user": {name: round(1000 * s, 3) for name, s in rows.items()},
        "measured_tflops": round(limits["flops"] / 1e12, 2),
        "measured_gbytes_per_s": round(limits["bytes"] / 1e9, 1),
        **extra,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", help="folder that holds book/ (default: BEARRAY_DATA or data)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    device = torch.device(options.device)
    result = measure(
        options.shape, device, options.users, options.batch_size, options.repeats, options.data_dir
    )
    print(json.dumps(result, indent=2))
    if device.type == "cuda":
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"decoding-gpu-{options.shape}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
