"""Titles as people write them: HTML entities turned into characters, white space tidied."""

from __future__ import annotations

import html


def clean_title(title: str | None, *, unescape: bool = True) -> str:
    """The text of a title as the model sees it; the empty string for a title that is missing.

    `unescape` turns `&amp;` and `&#39;` into characters; False keeps the published text, which has the
    entities. White space is stripped at the ends and collapsed inside in either case (a non-breaking space
    counts), so that a title which looks empty is empty.
    """
    if title is None:
        return ""
    return " ".join((html.unescape(title) if unescape else title).split())
