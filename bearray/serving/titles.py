"""From the titles and item ids that people type to the catalogue's own titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process, utils

from bearray.catalog import Catalog
from bearray.data import clean_title
from bearray.errors import DataError
from bearray.plain import encodable

SEPARATOR = ";"
"""Between the titles of a history written as one text."""
_SUGGESTIONS, _CLOSE = 3, 60.0
"""Titles suggested for one that is not known, and how alike they must be, of 100."""


@dataclass(frozen=True)
class History:
    """A user's titles, oldest first, as the prompt names them."""

    titles: tuple[str, ...]
    """Cleaned texts."""
    title_ids: tuple[int, ...]
    """Title ids of those that the catalogue holds."""
    unknown: tuple[str, ...] = ()
    """Those that it does not hold."""


class TitleIndex:
    """The titles of a catalogue by their text.

    Args:
        catalog: the catalogue. unescape: whether its titles had HTML entities turned into characters; typed
            ones are treated alike.
    """

    def __init__(self, catalog: Catalog, *, unescape: bool = True) -> None:
        self.catalog = catalog
        self.unescape = unescape
        self._id = {title: number for number, title in enumerate(catalog.titles)}

    def clean(self, title: str) -> str:
        return clean_title(title, unescape=self.unescape)

    def suggestions(self, title: str) -> list[str]:
        """The catalogue's titles that look most like this one, best first; none if none is alike."""
        found = process.extract(
            title,
            self.catalog.titles,
            scorer=fuzz.WRatio,
            processor=utils.default_process,
            limit=_SUGGESTIONS,
            score_cutoff=_CLOSE,
        )
        return [name for name, _, _ in found]

    def split(self, text: str) -> list[str]:
        """The titles of a history written as one text, with semicolons between them.

        A semicolon that belongs to a title of the catalogue does not separate.
        """
        parts = text.split(SEPARATOR)
        titles, start = [], 0
        while start < len(parts):
            ends = range(len(parts), start, -1)  # the longest title first
            joined = ((end, self.clean(SEPARATOR.join(parts[start:end]))) for end in ends)
            end = next((end for end, title in joined if title in self._id), start + 1)
            titles.append(self.clean(SEPARATOR.join(parts[start:end])))
            start = end
        return [title for title in titles if title]

    def history(self, titles: Sequence[str], *, allow_unknown: bool = False) -> History:
        """Look titles up.

        Args:
            titles: oldest first. allow_unknown: keep titles that the catalogue does not hold; the prompt is
                text, so the model can read them.

        Raises:
            DataError: no title, an empty one, one that is not Unicode, or one that the catalogue does not
                hold; the message suggests those that look like it.
        """
        if not titles:
            raise DataError("the history is empty; it needs at least one title")
        if not all(map(encodable, titles)):
            raise DataError("the history has a title that is not valid Unicode")
        cleaned = [self.clean(title) for title in titles]
        if not all(cleaned):
            raise DataError(f"title {cleaned.index('') + 1} of the history is empty")
        unknown = tuple(title for title in cleaned if title not in self._id)
        if unknown and not allow_unknown:
            raise DataError(self._not_known(unknown[0]))
        ids = tuple(self._id[title] for title in cleaned if title in self._id)
        return History(tuple(cleaned), ids, unknown)

    def of_items(self, items: Sequence[int]) -> list[str]:
        """The titles of some items.

        Raises:
            DataError: an item id that the catalogue does not hold.
        """
        of = self.catalog.title_of_item
        for item in items:
            if item not in of:
                raise DataError(
                    f"item {item} is not in the catalogue, whose {len(of)} item ids lie between {min(of)} "
                    f"and {max(of)}"
                )
        return [self.catalog.titles[of[item]] for item in items]

    def _not_known(self, title: str) -> str:
        close = self.suggestions(title)
        names = ", ".join(repr(name) for name in close)
        hint = f"; did you mean {names}?" if close else ", nor one like it"
        return f"title {title!r} is not in the catalogue{hint}"
