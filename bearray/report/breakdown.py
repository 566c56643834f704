"""Groups of test cases by what they are like: warm or cold, history, title, popularity, place in the trie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bearray.backbones.bigrec import BigRec
from bearray.backbones.load import load_tokenizer
from bearray.backbones.presets import LOCAL_PREFIX, expand_preset, is_folder
from bearray.catalog import Catalog, build_catalog
from bearray.catalog_cache import load_or_encode
from bearray.data.prompts import template_for
from bearray.errors import MissingFileError
from bearray.method_names import method_name
from bearray.report.background import Background, data_config
from bearray.report.records import Run

Ints = NDArray[np.int64]
QUARTERS, TENTHS = 4, 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Dimension:
    """One way to part the test cases."""

    name: str
    groups: tuple[tuple[str, NDArray[np.bool_]], ...]
    """(label, [U] which cases belong to it); every case belongs to one."""


def warm_or_cold(frame: pd.DataFrame) -> Dimension:
    """Whether the target was seen in training."""
    warm = frame["warm"].to_numpy(dtype=bool)
    both = (("warm (seen in training)", warm), ("cold (never seen)", ~warm))
    return Dimension(name="Target", groups=tuple((label, mask) for label, mask in both if mask.any()))


def by_data(background: Background, histories: Sequence[Ints], frame: pd.DataFrame) -> list[Dimension]:
    """What the data set tells: titles in the history, words of the target's title, its popularity."""
    targets = background.title_ids(frame["target"].to_numpy())
    words = [len(background.titles[t].split()) for t in targets]
    return [
        numbered("Titles in the history", [len(h) for h in histories], QUARTERS),
        numbered("Words of the target's title", words, QUARTERS),
        numbered("Popularity of the target (training targets)", background.popularity[targets], TENTHS),
    ]


def by_trie(background: Background, run: Run, base_model: str | None, frame: pd.DataFrame) -> list[Dimension]:
    """What the base model's tokens tell: how many choices lead to the target's title, and how crowded the
    first one is.

    Args:
        background: the run's data set.
        run: whose base model's tokenizer is taken.
        base_model: where that is, if it was moved; None: where config.json has it, if it is here.
        frame: the test cases.

    Raises:
        MissingFileError: the base model is not here.
        ModelError: it has no tokenizer that can be used.
    """
    catalog = _catalog(background, run, base_model)
    trie, order = catalog.trie, catalog.trie.title_order
    targets = [catalog.title_of_item[int(item)] for item in frame["target"]]
    shapes: dict[int, tuple[int, int]] = {}
    of = sorted(set(targets))
    for title, path in zip(of, trie.path_nodes([catalog.tokens[t] for t in of]), strict=True):
        nodes = np.array(path)
        children = trie.child_start.numpy()[nodes + 1] - trie.child_start.numpy()[nodes]
        branching = np.flatnonzero(children + (trie.terminal.numpy()[nodes] >= 0) > 1)
        behind = 1  # a title that is the only one, or whose first choice is to end
        if len(branching) and branching[0] + 1 < len(nodes):
            node = int(nodes[branching[0] + 1])
            behind = int(order.end[node]) - int(order.first[node])
        shapes[title] = len(branching), behind
    branching_steps, crowd = np.array([shapes[t] for t in targets]).T
    return [
        numbered("Branching steps of the target's title", branching_steps, QUARTERS),
        numbered("Titles behind the target's first choice", crowd, QUARTERS),
    ]


def numbered(name: str, values: ArrayLike, parts: int) -> Dimension:
    """Test cases in at most `parts` groups of about equal size by a whole number; cases with equal numbers
    stay together, so there are fewer groups where many are equal.

    A number belongs to the part in which the middle of its cases lies when all are sorted.
    """
    each = np.asarray(values, dtype=np.int64)
    distinct, index, counts = np.unique(each, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(each)
    part = np.minimum((middle * parts).astype(int), parts - 1)
    groups = []
    for number in np.unique(part):
        low, high = distinct[part == number][[0, -1]]
        label = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        groups.append((label, part[index.reshape(-1)] == number))
    return Dimension(name=name, groups=tuple(groups))


def _catalog(background: Background, run: Run, base_model: str | None) -> Catalog:
    config = data_config(run)
    template = template_for(background.dataset.name, config.domain, config.domain_words)
    backbone = BigRec(load_tokenizer(_tokenizer_place(run, base_model)), template)
    return build_catalog(
        background.dataset.items,
        backbone.encode_answers,
        unescape=config.unescape,
        encode=partial(load_or_encode, tokenizer=backbone.tokenizer),
    )


def _tokenizer_place(run: Run, base_model: str | None) -> str:
    """A folder here; nothing is downloaded to compare runs."""
    base = base_model or str((run.settings.get("model") or {}).get("base") or "")
    if not base:
        raise MissingFileError(f"{method_name(run.method)} has no base model, so its titles have no tokens")
    hint = "give its folder (--base-model)"
    if "\0" in base or base.startswith(LOCAL_PREFIX):
        raise MissingFileError(f"the base model of {run.id} is not in a folder here; {hint}")
    name = expand_preset(base)
    if is_folder(name):
        if not Path(name).is_dir():
            raise MissingFileError(f"the base model {Path(name).name} is not here; {hint}")
        return name
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "tokenizer.json")
    except HFValidationError:
        cached = None
    if not isinstance(cached, str):
        raise MissingFileError(f"the base model {name} was not downloaded here; {hint}")
    return str(Path(cached).parent)
