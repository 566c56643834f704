"""The baselines by name, each with its settings and what it needs from a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bearray.baselines.base import Baseline
from bearray.baselines.bert4rec import BERT4Rec
from bearray.baselines.dllm2rec import DLLM2Rec
from bearray.baselines.dros import DROS
from bearray.baselines.llm_cf import LLMCF
from bearray.baselines.sasrec import SASRec
from bearray.config import (
    BERT4RecConfig,
    DLLM2RecConfig,
    DROSConfig,
    LLMCFConfig,
    SASRecConfig,
)
from bearray.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A baseline and its settings."""

    kind: type[Baseline]
    config: type[Any]
    llm: Literal["none", "teacher", "chains"] = "none"
    """What it needs from a language model beside vectors of titles: nothing at all, lists for the training
    windows, or chains of thought."""


BASELINES: dict[str, Entry] = {
    entry.kind.name: entry
    for entry in (
        Entry(SASRec, SASRecConfig),
        Entry(BERT4Rec, BERT4RecConfig),
        Entry(DROS, DROSConfig),
        Entry(DLLM2Rec, DLLM2RecConfig, "teacher"),
        Entry(LLMCF, LLMCFConfig, "chains"),
    )
}
"""By name, as on the command line."""


def baseline(name: str) -> Entry:
    """The baseline of a name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in BASELINES:
        raise ConfigError(f"there is no baseline {name!r}; there are {', '.join(BASELINES)}")
    return BASELINES[name]
