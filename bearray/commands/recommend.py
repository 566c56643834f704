"""`bearray recommend --run RUN --history "title; title"`: what a trained model recommends."""

from __future__ import annotations

import json as json_format
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bearray.errors import BearrayError, ConfigError, DataError

if TYPE_CHECKING:
    from bearray.serving import RecommendedList, Recommender
    from bearray.serving.histories import Asked
    from bearray.serving.titles import History

_SHOWN = 80
"""Characters of a wrong history that a message repeats."""
_CHUNK = 64
"""Histories decoded before the first of them is shown."""


def recommend(
    *,
    run: str,
    history: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    histories: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    item_ids: bool = False,
    k: int | None = None,
    normalize: Literal["trie", "full"] | None = None,
    exclude_history: bool = False,
    exact: bool = False,
    node_budget: int | None = None,
    unknown_titles: bool = False,
    json: bool = False,
    data_dir: str | None = None,
    base_model: str | None = None,
) -> None:
    """Show what a trained model recommends after a history, with scores, pruning margins and a proof.

    score: log-probability of the title. margin: how narrowly the title got through beam search: by how many
    nats its least certain prefix was more probable than the best one that was dropped beside it; negative
    (with --exact): beam search drops the title, by so much. A list is proven when all that beam search
    dropped was less probable than its last title, so that no title of the catalogue is missing; --exact
    searches until that is so.

    Args:
        run: Run folder, or an export (bearray export).
        history: Titles, oldest first, separated by semicolons; give it again for another history.
        histories: CSV with a column history (and perhaps user), or JSON lines with the same fields.
        item_ids: Histories hold item ids instead of titles.
        k: Titles to show (default: the run's beam width).
        normalize: Softmax over valid next tokens or the vocabulary (default: the run's own).
        exclude_history: Leave out titles of the history.
        exact: Search the whole catalogue by branch and bound.
        node_budget: With --exact: prefixes to score for one history at most (default: until proven).
        unknown_titles: Allow titles that the catalogue does not hold; the prompt is text.
        json: Print a JSON object for each history, on a line of its own.
        data_dir: Folder or URI of the run's data set, if it was moved or is not a folder here.
        base_model: Folder or hub id of the run's base model, if it was moved or never downloaded here.
    """
    from bearray.quiet import quiet_libraries, show_downloads
    from bearray.serving.histories import Asked, read_histories

    if node_budget is not None and not exact:
        raise ConfigError("--node-budget limits exact search; give --exact, too")
    asked = [Asked(text) for text in history]
    if histories is not None:
        asked += read_histories(histories)
    if not asked:
        raise ConfigError('no history is given; give --history "first title; second title", or --histories')
    quiet_libraries()
    show_downloads()
    from bearray.serving import open_recommender
    from bearray.serving.progress import SearchProgress

    recommender = open_recommender(run, data_dir=data_dir, base_model=base_model, say=_say)
    known = [_known(recommender, one, item_ids, unknown_titles) for one in asked]
    if not json:
        _print_model(recommender, normalize, exact)
    progress = SearchProgress(recommender.model, len(known))
    for start in range(0, len(known), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        with progress.searching():
            found = recommender.recommend_known(
                known[chunk],
                k=k,
                normalize=normalize,
                exclude_history=exclude_history or None,
                exact=exact or None,
                node_budget=node_budget,
                progress=progress,
            )
        for one, row in zip(asked[chunk], found, strict=True):
            _print_json(one, row) if json else _print_table(one, row, len(recommender.catalog))


def _say(text: str) -> None:
    """To standard error: standard output has what is found."""
    from bearray.plain import printable
    from bearray.terminal import terminal

    terminal(stderr=True, soft_wrap=True).print(printable(text))


def _known(recommender: Recommender, asked: Asked, item_ids: bool, unknown_titles: bool) -> History:
    """Raises DataError with the place of the history, where there are many."""
    index, history = recommender.titles, asked.history
    try:
        if item_ids:
            titles = index.of_items(_numbers(history))
        else:
            titles = index.split(history) if isinstance(history, str) else history
            if not all(isinstance(title, str) for title in titles):
                raise DataError("a history must be a list of titles; for item ids, give --item-ids")
        return index.history(titles, allow_unknown=unknown_titles)
    except BearrayError as error:
        if not item_ids and "not in the catalogue" in str(error):
            error = DataError(f"{error}; --unknown-titles asks the model all the same")
        raise DataError(f"{asked.where}: {error}") from error


def _numbers(history: str | list[Any]) -> list[int]:
    parts = [part for part in history.split(";") if part.strip()] if isinstance(history, str) else history
    try:
        if not all(type(part) in (int, str) for part in parts):  # int() would also take 2.5 and true
            raise TypeError
        return [int(part) for part in parts]
    except (TypeError, ValueError) as error:
        shown = str(history)[:_SHOWN]
        raise DataError(f"the history {shown!r} must hold item ids, such as '12; 7'") from error


def _print_model(recommender: Recommender, normalize: str | None, exact: bool) -> None:
    from rich.text import Text

    from bearray.method_names import method_name
    from bearray.plain import printable
    from bearray.terminal import terminal

    about, own = recommender.about, recommender.decoding
    how = "exact search" if exact or own.method == "exact" else f"beam search, {own.beam_width} beams"
    over = "valid tokens" if (normalize or own.normalize) == "trie" else "the vocabulary"
    line = (
        f"{method_name(str(about['method']))} on {about['dataset']}, {about['base_model']}: "
        f"{about['titles']:,} titles; {how}, softmax over {over}"
    )
    console = terminal(soft_wrap=True)
    console.print(Text(printable(line)))
    for note in about.get("notes", ()):
        console.print(Text(printable(f"note: {note}")))


def _print_table(asked: Asked, found: RecommendedList, titles: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from bearray.plain import printable
    from bearray.terminal import terminal

    console = terminal()
    after = f"{f'{asked.user}, after' if asked.user else 'after'}: {'; '.join(found.history)}"
    console.print()
    console.print(Text(printable(after)), soft_wrap=True)
    if found.unknown:
        console.print(Text(printable(f"not in the catalogue: {'; '.join(found.unknown)}")), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("#", "title", "item", "score", "margin"):
        table.add_column(name, justify="left" if name == "title" else "right")
    for place, item in enumerate(found.items, 1):
        more = f" +{len(item.item_ids) - 1}" if len(item.item_ids) > 1 else ""
        margin = "inf" if math.isinf(item.margin) else f"{item.margin:.3f}"
        cells = (str(place), printable(item.title), f"{item.item_ids[0]}{more}", f"{item.score:.4f}", margin)
        table.add_row(*map(Text, cells))
    # A log has no width, and titles are not to be broken over lines there.
    (console if console.is_terminal else terminal(width=10_000)).print(table)
    if found.proven:
        verdict = f"proven: the best {len(found.items)} of all {titles:,} titles"
    else:
        verdict = "not proven: a title that the search dropped may be better (--exact finds out)"
    console.print(Text(verdict))


def _print_json(asked: Asked, found: RecommendedList) -> None:
    from bearray.serving.recommender import plain

    user = {"user": asked.user} if asked.user is not None else {}
    print(json_format.dumps(user | plain(found), ensure_ascii=False), flush=True)
