"""Which titles a user may be given: not those already read, only those in stock, none from a blocked list.

The trie stays as it is. A set of titles is a set of places in `TokenTrie.title_order`, and a prefix is dead
for a user when no allowed place lies in its interval; two binary searches tell. The answers are those of a
trie built anew from the user's allowed titles, the "trie" normaliser included: it runs over the living
continuations only.

Axis letters: U users, N trie nodes, K continuations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bearray.errors import ConfigError, DataError
from bearray.trie import TokenTrie

TitleSets = Sequence[Sequence[int]]
"""[U] title ids of each user, in any order; the same object may stand for many users."""


class TitleFilter:
    """Allowed and denied titles of U users.

    Args:
        allow: each user's only titles; None allows the whole catalogue. A user who is allowed nothing gets an
            empty list.
        deny: titles that a user must not get, whatever is allowed.

    Raises:
        ConfigError: neither is given, or they are for different numbers of users.
    """

    def __init__(self, *, allow: TitleSets | None = None, deny: TitleSets | None = None) -> None:
        if allow is None and deny is None:
            raise ConfigError("a TitleFilter needs allow=..., deny=... or both: one list of title ids a user")
        if allow is not None and deny is not None and len(allow) != len(deny):
            raise ConfigError(
                f"allow is for {len(allow)} users and deny for {len(deny)}; both need one a user"
            )
        self.allow, self.deny = allow, deny

    def __len__(self) -> int:
        """Number of users."""
        return len(self.deny if self.allow is None else self.allow)  # type: ignore[arg-type]

    def on(self, trie: TokenTrie, rows: Sequence[int]) -> LivingTitles:
        """The sets of some users, as places in the trie's order.

        Raises:
            DataError: a title id that the trie does not hold; the message names user and id.
        """
        place = trie.title_order.place.cpu().numpy()
        known: dict[int, tuple[Sequence[int], np.ndarray]] = {}

        def places(sets: TitleSets, row: int, what: str) -> np.ndarray:
            ids = sets[row]
            if id(ids) not in known:  # a region's stock is often one list for many users
                known[id(ids)] = (
                    ids,
                    _places(ids, place, f"{what}[{row}]"),
                )  # kept, so that no other gets its id
            return known[id(ids)][1]

        per_user = []
        for row in rows:
            denied = np.empty(0, np.int64) if self.deny is None else places(self.deny, row, "deny")
            if self.allow is None:
                per_user.append(denied)
            else:
                per_user.append(np.setdiff1d(places(self.allow, row, "allow"), denied, assume_unique=True))
        return LivingTitles(trie, per_user, listed_live=self.allow is not None)


def _places(ids: Sequence[int], place: np.ndarray, what: str) -> np.ndarray:
    """Sorted, distinct places of title ids."""
    titles = np.asarray(ids, dtype=np.int64).reshape(-1)
    unknown = titles[(titles < 0) | (titles >= len(place))]
    if len(unknown):
        raise DataError(f"{what} holds title {unknown[0]}, but the trie's titles are 0 to {len(place) - 1}")
    found = place[titles]
    if len(found) and found.min() < 0:
        raise DataError(
            f"{what} holds title {titles[found.argmin()]}, which has the same tokens as an earlier title; "
            "name that one"
        )
    return np.unique(found).astype(np.int64)


class LivingTitles:
    """A batch's sets, ready for look-ups on the trie's device. Made by `TitleFilter.on`."""

    def __init__(self, trie: TokenTrie, places: Sequence[np.ndarray], *, listed_live: bool) -> None:
        self.order = trie.title_order
        self.listed_live = listed_live
        self._stride = trie.num_sequences + 1
        keys = [row * self._stride + sorted_places for row, sorted_places in enumerate(places)]
        flat = np.concatenate(keys) if keys else np.empty(0, np.int64)
        self._keys = torch.from_numpy(flat).to(trie.device)

    def alive(self, users: Tensor, nodes: Tensor, child: Tensor) -> Tensor:
        """Whether a continuation leads to any title that its user may be given.

        Args:
            users: [N] rows of the batch. nodes: [N]. child: [N, K], as `TokenTrie.children` gives them.

        Returns:
            [N, K] bool.
        """
        first, end = self.order.intervals(nodes, child)
        offset = (users.long() * self._stride)[:, None]
        listed = torch.searchsorted(self._keys, offset + end) - torch.searchsorted(self._keys, offset + first)
        return listed > 0 if self.listed_live else listed < end - first

    def mask(self, users: int) -> Tensor:
        """[U, titles in the trie] bool, by place: which titles live."""
        places = int(self.order.end[0])
        table = torch.full((users, self._stride), not self.listed_live, device=self._keys.device)
        table.view(-1)[self._keys] = self.listed_live
        return table[:, :places]
