"""What a language model has said about a data set, as the LLM-enhanced baselines read it.

Computed by Ray Data actors (`bearray.evaluation.llm_parts`) from any base model, kept as one file of arrays.

Axis letters: T titles, W training windows, K titles of a teacher's list, E examples, H hidden size of the
language model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from bearray.array_files import read_arrays, write_arrays
from bearray.errors import DataError

PARTS = "parts.safetensors"
"""Name of their file."""
_KIND, _VERSION = "words of a language model", 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LLMParts:
    """Vectors and lists by a language model; what a baseline did not ask for is None."""

    key: str
    """Hash of all that they depend on: data, base model, settings."""
    title_vectors: Tensor
    """[T, H] float32: each title's text."""
    teacher_titles: Tensor | None = None
    """[W, K] int64: the titles that the language model recommends for each training window, best first."""
    teacher_distances: Tensor | None = None
    """[W, K] float32: how far each of them is from what the model wrote."""
    example_rows: Tensor | None = None
    """[E] int64: the training windows that there is a chain of thought about."""
    example_titles: Tensor | None = None
    """[E] int64: the title that it is about: the window's target, or one that the user has not seen."""
    example_labels: Tensor | None = None
    """[E] bool: it is the target."""
    example_vectors: Tensor | None = None
    """[E, H] float32: the text of the chain of thought."""

    def need(self, name: str, what: str) -> Tensor:
        """One of the arrays.

        Raises:
            DataError: it was not asked for when these parts were made.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise DataError(f"{what} needs {name} from a language model, but these parts have none")
        return value


_ARRAYS = tuple(name for name in LLMParts.__dataclass_fields__ if name != "key")


def write_parts(path: str | os.PathLike[str], parts: LLMParts) -> None:
    """Write them to a file, whole or not at all."""
    arrays = {name: getattr(parts, name) for name in _ARRAYS if getattr(parts, name) is not None}
    write_arrays(path, arrays, kind=_KIND, version=_VERSION, facts={"titles": len(parts.title_vectors)})


def read_parts(path: str | os.PathLike[str], key: str) -> LLMParts:
    """Read what `write_parts` has written.

    Raises:
        DataError: the file is damaged or of something else.
    """
    arrays, _ = read_arrays(path, kind=_KIND, version=_VERSION)
    unknown = sorted(set(arrays) - set(_ARRAYS))
    if unknown or "title_vectors" not in arrays:
        raise DataError(f"{os.fspath(path)} holds {sorted(arrays)}; it must hold title_vectors")
    return LLMParts(key=key, **{name: value.clone() for name, value in arrays.items()})


def text_directions(vectors: Tensor) -> Tensor:
    """[T, H] centred and of length 1, so that products compare what texts say.

    Hidden states of a causal language model share one large component, which hides all else.
    """
    return normalize(vectors - vectors.mean(0), dim=-1)


def mean_over_history(directions: Tensor, histories: Tensor) -> Tensor:
    """[U, H] mean vector of each history [U, L] (-1 is padding)."""
    real = (histories >= 0).unsqueeze(-1).to(directions.dtype)
    found = directions[histories.clamp(min=0)] * real
    return found.sum(1) / real.sum(1).clamp(min=1)
