"""A tokenised catalogue is kept on disk, because every process of a sweep needs it: workers, actors, drivers.

One file a catalogue, in the user's cache, named by a hash of all that its content depends on: the tokenizer,
the titles' cleaned texts, the tokens of some of them as they come out today (which also shows another wording
of answers or another version of a library), and the layout of the file. Nothing needs to be cleared when one
of them changes; files may be deleted at any time. The file is memory-mapped, so the processes of one machine
share its pages.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from torch import Tensor

from bearray.array_files import read_arrays, write_arrays
from bearray.catalog import EncodeAnswers, EncodedTitles, encode_titles
from bearray.errors import BearrayError, DataError, StorageError
from bearray.ragged import TokenLists
from bearray.trie import TokenTrie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORTH_KEEPING = 4_000
"""Fewer titles are tokenised anew each time: that takes less than two tenths of a second."""

_KIND, _VERSION = "tokenised catalogue", 1
_PROBES = 64
_PATIENCE_S = 900.0
"""How long to wait for another process that tokenises the same catalogue, before doing it as well."""
_log = logging.getLogger(__name__)


def load_or_encode(
    texts: list[str],
    encode_answers: EncodeAnswers,
    *,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path | None = None,
) -> EncodedTitles:
    """`encode_titles`, remembered on disk.

    Several processes may ask at once: one tokenises, the others wait for its file. A damaged file is made
    anew. A folder that cannot be written costs the remembering and nothing else.

    Args:
        texts: different cleaned titles.
        encode_answers: a function of the tokenizer and of each text by itself.
        tokenizer: what `encode_answers` works with. One without a `backend_tokenizer` (not a fast one)
            cannot be told apart from others, so nothing is remembered.
        folder: default: `default_cache_dir()`.
    """
    if len(texts) < WORTH_KEEPING or getattr(tokenizer, "backend_tokenizer", None) is None:
        return encode_titles(texts, encode_answers)
    path = Path(folder or default_cache_dir()) / f"{cache_key(texts, encode_answers, tokenizer)}.safetensors"
    found = _read(path, len(texts))
    if found is not None:
        return found
    with _one_at_a_time(path):
        found = _read(path, len(texts))  # another process may have written it while this one waited
        if found is not None:
            return found
        encoded = encode_titles(texts, encode_answers)
        _write(path, encoded)
    return _read(path, len(texts)) or encoded  # the mapped one is shared with the processes that come later


def default_cache_dir() -> Path:
    """Where catalogues are kept: $BEARRAY_CACHE/catalogues, else ~/.cache/bearray/catalogues."""
    configured = os.environ.get("BEARRAY_CACHE")
    return (Path(configured) if configured else Path.home() / ".cache" / "bearray") / "catalogues"


def cache_key(texts: list[str], encode_answers: EncodeAnswers, tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hex digits that depend on all that the tokens depend on; the texts in their order."""
    probes = texts[:: max(1, len(texts) // _PROBES)]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    digest = hashlib.sha256(f"{_KIND} {_VERSION} {len(texts)} {encode_answers(probes)}".encode())
    for part in (
        tokenizer.backend_tokenizer.to_str().encode("utf-8", "surrogatepass"),
        lengths.tobytes(),
        "".join(texts).encode("utf-8", "surrogatepass"),
    ):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]


def _read(path: Path, texts: int) -> EncodedTitles | None:
    """None where there is no file that can be used."""
    if not path.exists():
        return None
    try:
        arrays, facts = read_arrays(path, kind=_KIND, version=_VERSION)
        trie = TokenTrie.from_arrays(arrays, facts, path)
        title_of_text = arrays["title_of_text"].numpy()
        tokens = TokenLists(arrays["tokens"].numpy(), arrays["starts"].numpy())
        if len(title_of_text) != texts or len(tokens) != trie.num_sequences:
            raise DataError(f"{path} is of another catalogue")
    except (BearrayError, KeyError) as error:
        _log.warning("the kept catalogue cannot be used and is made anew: %s", error)
        return None
    return EncodedTitles(title_of_text, tokens, trie)


def _write(path: Path, encoded: EncodedTitles) -> None:
    arrays: dict[str, Tensor | np.ndarray] = {
        **encoded.trie.arrays(),
        "title_of_text": encoded.title_of_text,
        "tokens": encoded.tokens.tokens,
        "starts": encoded.tokens.starts,
    }
    try:
        write_arrays(path, arrays, kind=_KIND, version=_VERSION, facts=encoded.trie.facts())
    except StorageError as error:
        _log.info("the tokenised catalogue is not kept: %s", error)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the file's lock where that is possible; where it is not, several processes do the same work."""
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", timeout=_PATIENCE_S)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        _log.info("no lock for the tokenised catalogue: %s", error)
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
