"""A stand-in for a pre-trained language model: a small Llama built from the training split, in minutes, on
a CPU.

It is what a laptop or a machine without a download uses to run the whole pipeline: the same loading code,
the same adapter, the same prompts. It is not a pre-trained model. It has read nothing but the training
split's titles and histories, as lists and as prompts with their answers, so it knows the catalogue's
wording, the question and who follows whom, and nothing of the world; numbers from it compare objectives,
they do not predict what Llama 3 would reach.

The folder is in Hugging Face format, with a card `bearray-base.json` that says what it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock

from bearray.backbones.bpe import train_tokenizer
from bearray.backbones.corpus import Corpus, training_corpus, write_documents
from bearray.backbones.presets import STAND_IN_CARD
from bearray.backbones.pretrain import BaseSize, new_model, pack, steps_for, train, unigram_entropy
from bearray.backbones.progress import no_library_bars, training_progress
from bearray.data.prompts import DOMAINS, PromptTemplate, render_prompt, template_for
from bearray.errors import ModelError, StorageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from bearray.data import Dataset

RECIPE = 2
"""Version of everything below that changes the weights; part of the cache key."""

SIZES = {
    size.name: size
    for size in (
        BaseSize(
            name="tiny", hidden=128, layers=4, heads=4, kv_heads=2, intermediate=352, vocab_size=2048,
            batch_blocks=2, max_steps=240, lr=4e-3, threads=1,
        ),
        BaseSize(
            name="small", hidden=288, layers=6, heads=6, kv_heads=6, intermediate=768, vocab_size=4096,
            batch_blocks=2, max_steps=600, lr=3e-3,
        ),
        BaseSize(
            name="medium", hidden=512, layers=8, heads=8, kv_heads=8, intermediate=1408, vocab_size=8192,
            batch_blocks=8, max_steps=2000, lr=1e-3,
        ),
    )
}  # fmt: skip
"""Stand-ins by name: about 1, 7 and 30 million parameters. Medium is meant for a GPU."""


def build_base_model(
    dataset: Dataset,
    size: str | BaseSize = "tiny",
    *,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    out: str | Path | None = None,
    steps: int | None = None,
    unescape: bool = True,
    progress: bool = True,
) -> Path:
    """Build a stand-in base model, or find it in the cache.

    A byte-level BPE tokenizer is trained on the titles that occur in training windows and on the prompt
    templates; then a Llama with random weights learns next-token prediction on the training histories,
    written as lists of quoted titles and as prompts with their answers. Equal training split, size, steps
    and seed give the same folder and, with the same number of threads on the same kind of processor, the same
    weights. Several processes may ask at once: one builds, the others wait.

    Args:
        dataset: only `items` and `train` are read, and of `items` only titles that occur in `train`.
        size: "tiny", "small" or "medium", or a shape of one's own.
        seed: of initialisation, order and layout of the text.
        steps: optimiser steps; None: the size's own, which take minutes.
        cache_dir: default: the environment's BEARRAY_CACHE, or ~/.cache/bearray/base-models.
        out: also put the folder here; it must not hold anything else.
        unescape: turn HTML entities in titles into characters, as `DataConfig.unescape`.
        progress: show the steps and the loss on stderr.

    Returns:
        The Hugging Face folder: `out` if given, else the one in the cache.

    Raises:
        ModelError: an unknown size.
        StorageError: the cache or `out` cannot be written, or `out` holds something else.
    """
    shape = base_size(size)
    if steps is not None:
        if steps < 1:
            raise ModelError(f"steps is {steps}; it must be at least 1")
        shape = replace(shape, max_steps=steps, epochs=float(steps * shape.batch_blocks))
    corpus = training_corpus(dataset, unescape=unescape)
    template = template_for(dataset.name)
    key = _content_key(corpus, template, shape, seed)
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    folder = cache / f"{shape.name}-{key[:16]}"
    try:
        if not _is_complete(folder):
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{folder.name}.lock"):
                if not _is_complete(folder):  # another process may have built it while this one waited
                    _publish(
                        folder,
                        lambda new: _build(new, dataset.name, corpus, template, shape, seed, key, progress),
                    )
        return folder if out is None else _copy(folder, Path(out), key)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"the stand-in base model cannot be written under {cache}: {error}") from error


def default_cache_dir() -> Path:
    """Where stand-ins are kept: $BEARRAY_CACHE, else ~/.cache/bearray/base-models."""
    configured = os.environ.get("BEARRAY_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "bearray" / "base-models"


def base_size(size: str | BaseSize) -> BaseSize:
    if isinstance(size, BaseSize):
        return size
    if size not in SIZES:
        raise ModelError(f"no local base model of size {size!r}; sizes are {', '.join(SIZES)}")
    return SIZES[size]


def _content_key(corpus: Corpus, template: PromptTemplate, size: BaseSize, seed: int) -> str:
    texts = [*_template_texts(), render_prompt(template, [""])]
    content = [RECIPE, asdict(size), seed, corpus.titles, corpus.histories, texts]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _template_texts() -> list[str]:
    """Every domain's prompt, so that the tokenizer does not depend on which wording a run chooses."""
    return [render_prompt(template, [""]) for template in DOMAINS.values()]


def _tokenizer_texts(corpus: Corpus) -> list[str]:
    """Each title once on a line of its own, as in an answer, and once behind a comma, as in a prompt."""
    return [f'"{t}"\n' for t in corpus.titles] + [f', "{t}"' for t in corpus.titles] + _template_texts()


def _build(
    folder: Path,
    dataset_name: str,
    corpus: Corpus,
    template: PromptTemplate,
    size: BaseSize,
    seed: int,
    key: str,
    progress: bool,
) -> None:
    started = time.perf_counter()
    tokenizer = train_tokenizer(_tokenizer_texts(corpus), size.vocab_size)
    bos, eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)

    def epoch_blocks(epoch: int) -> np.ndarray:
        return _text_blocks(corpus, template, tokenizer, size, np.random.default_rng([seed, epoch]))

    first = epoch_blocks(0)
    model = new_model(size, len(tokenizer), bos=bos, eos=eos, seed=seed)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    steps = steps_for(len(first), size)
    bar = training_progress(f"stand-in base model ({size.name})", steps, enabled=progress)
    with _threads(size.threads), bar as on_step:
        losses = train(model, epoch_blocks, size, steps, seed=seed, on_step=on_step)

    with no_library_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    seen = steps * size.batch_blocks * size.context
    card: dict[str, Any] = {
        "kind": "local stand-in for a pre-trained model",
        "trained_on": f"titles and histories of the training split of {dataset_name}, nothing else",
        "content_key": key,
        "recipe": RECIPE,
        "seed": seed,
        "size": asdict(size),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "titles": len(corpus.titles),
        "histories": len(corpus.histories),
        "corpus_tokens": int(first.size),
        "tokens_seen": seen,
        "steps": steps,
        "unigram_entropy_nats": round(unigram_entropy(first), 4),
        "loss_nats": _summary(losses),
        "seconds": round(time.perf_counter() - started, 1),
        "device": str(model.device),
        "threads": size.threads or torch.get_num_threads(),
        "torch": torch.__version__,
    }
    (folder / STAND_IN_CARD).write_text(json.dumps(card, indent=2) + "\n")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _text_blocks(
    corpus: Corpus,
    template: PromptTemplate,
    tokenizer: PreTrainedTokenizerFast,
    size: BaseSize,
    rng: np.random.Generator,
) -> np.ndarray:
    documents = write_documents(corpus.histories, rng, template)
    order = rng.permutation(len(documents))
    encoded = tokenizer(
        [documents[i] for i in order],
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    return pack(encoded, size.context, bos=int(tokenizer.bos_token_id), eos=int(tokenizer.eos_token_id))


def _summary(losses: list[float]) -> dict[str, Any]:
    """First, last and about 20 points between, each the mean of its stretch."""
    parts = np.array_split(np.asarray(losses), min(20, len(losses)))
    curve = [round(float(part.mean()), 4) for part in parts]
    return {"first_step": round(losses[0], 4), "last": curve[-1], "curve": curve}


def _is_complete(folder: Path) -> bool:
    return (folder / STAND_IN_CARD).is_file()


def _publish(folder: Path, write: Callable[[Path], object]) -> None:
    """Fill a temporary neighbour and rename it, so that a folder of the final name is always whole."""
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(new)
        new.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
        shutil.rmtree(folder, ignore_errors=True)  # a leftover without a card
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _copy(folder: Path, out: Path, key: str) -> Path:
    if out.exists():
        card = out / STAND_IN_CARD
        if card.is_file() and json.loads(card.read_text()).get("content_key") == key:
            return out
        if not out.is_dir() or any(out.iterdir()):
            raise StorageError(f"{out} exists and is not this base model; choose an empty or a new folder")
        out.rmdir()
    out.parent.mkdir(parents=True, exist_ok=True)
    _publish(out, lambda new: shutil.copytree(folder, new, dirs_exist_ok=True))
    return out
