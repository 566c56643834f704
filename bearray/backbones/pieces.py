"""Prompts of BIGRec's wording with soft tokens between its words, for the backbones that have some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bearray.backbones.bigrec import Asked, BigRec
from bearray.backbones.soft import soft_token
from bearray.data.prompts import prompt_pieces


class PiecewisePrompts(BigRec):
    """Each title of the history is followed by its soft token, behind the closing quote.

    The text between two soft tokens is tokenised by itself, as it is wherever a special token divides a
    text. Arguments and errors as `BigRec`.
    """

    def _encode(self, asked: Sequence[Asked]) -> list[list[int]]:
        pieces = [prompt_pieces(self.template, [text for text, _ in a.kept]) for a in asked]
        different = list(dict.fromkeys(piece for own in pieces for piece in own))
        tokens = dict(zip(different, self._tokenize(different), strict=True))
        return [
            [*self._lead(a), *_flat(tokens, own, [self._behind(title) for _, title in a.kept])]
            for a, own in zip(asked, pieces, strict=True)
        ]

    def _lead(self, asked: Asked) -> list[int]:
        """What the prompt starts with."""
        return self._bos

    def _behind(self, title: str) -> list[int]:
        """What stands behind a title of the history."""
        number = self._title_id.get(title)
        return self._behind_unknown() if number is None else [soft_token("item", number)]

    def _behind_unknown(self) -> list[int]:
        """What stands behind a title that the catalogue does not hold."""
        return []


def _flat(tokens: dict[str, list[int]], pieces: Sequence[str], behind: Iterable[list[int]]) -> list[int]:
    found: list[int] = []
    for piece, soft in zip(pieces, [*behind, []], strict=True):
        found += tokens[piece] + soft
    return found
