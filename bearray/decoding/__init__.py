"""Decoders: from a prompt to a ranked list of titles of the catalogue.

The functions are imported when they are first used, so that listing the decoders does not load PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bearray.decoding.registry import list_decoders

if TYPE_CHECKING:
    from bearray.decoding.beam import constrained_beam_search
    from bearray.decoding.d3 import d3_beam_search
    from bearray.decoding.diverse import diverse_beam_search
    from bearray.decoding.embeddings import TitleEmbeddings, embed_titles
    from bearray.decoding.exact import exact_top_k
    from bearray.decoding.greedy import greedy_search
    from bearray.decoding.grounding import grounded_beam_search
    from bearray.decoding.result import BeamResult
    from bearray.decoding.title_filter import TitleFilter

__all__ = [
    "BeamResult",
    "TitleEmbeddings",
    "TitleFilter",
    "constrained_beam_search",
    "d3_beam_search",
    "diverse_beam_search",
    "embed_titles",
    "exact_top_k",
    "greedy_search",
    "grounded_beam_search",
    "list_decoders",
]

_HOME = {
    "BeamResult": "result",
    "TitleEmbeddings": "embeddings",
    "TitleFilter": "title_filter",
    "constrained_beam_search": "beam",
    "d3_beam_search": "d3",
    "diverse_beam_search": "diverse",
    "embed_titles": "embeddings",
    "exact_top_k": "exact",
    "greedy_search": "greedy",
    "grounded_beam_search": "grounding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
