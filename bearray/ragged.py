"""Many short lists of token ids in two arrays: a million titles take 50 MB instead of 500."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, overload

import numpy as np

from bearray.errors import DataError


class TokenLists(Sequence[list[int]]):
    """A read-only sequence of lists of token ids; reading one makes a list of it.

    Args:
        tokens: [all tokens] integers, the lists one after the other.
        starts: [lists + 1] where each begins, ascending from 0, and at last the number of tokens.

    Raises:
        DataError: `starts` does not fit `tokens`.
    """

    def __init__(self, tokens: np.ndarray, starts: np.ndarray) -> None:
        if len(starts) == 0 or starts[0] != 0 or starts[-1] != len(tokens) or (np.diff(starts) < 0).any():
            raise DataError(f"starts must ascend from 0 to the number of tokens, {len(tokens)}")
        self.tokens = tokens
        self.starts = starts

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> TokenLists:
        """Copy lists, which may come from a generator; a `TokenLists` is returned as it is."""
        if isinstance(lists, TokenLists):
            return lists
        lists = lists if isinstance(lists, Sequence) else list(lists)
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=int(starts[-1]))
        if tokens.size and tokens.min() >= 0 and tokens.max() < 2**31:
            tokens = tokens.astype(np.int32)
        return cls(tokens, starts)

    @classmethod
    def joined(cls, parts: Sequence[TokenLists]) -> TokenLists:
        """The lists of several parts, one part after the other."""
        lengths = [part.lengths for part in parts]
        starts = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]))])
        return cls(np.concatenate([np.zeros(0, np.int32), *(part.tokens for part in parts)]), starts)

    @property
    def lengths(self) -> np.ndarray:
        """[lists] tokens in each."""
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> TokenLists:
        """Only these lists, by index, in that order."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        place = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return TokenLists(self.tokens[place], starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {index} of {len(self)}")
        index %= len(self)
        return self.tokens[self.starts[index] : self.starts[index + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        for low, high in pairwise(self.starts.tolist()):
            yield self.tokens[low:high].tolist()

    def __repr__(self) -> str:
        return f"TokenLists({len(self)} lists, {len(self.tokens)} tokens)"
