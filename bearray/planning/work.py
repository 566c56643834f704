"""How much there is to do: windows, and tokens in each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from bearray.errors import ConfigError


@cache
def measured_facts() -> dict[str, Any]:
    """What the committed benchmarks say, as benchmarks/scale.py has put it into the package:

    {"prompt_tokens": mean, "longest_prompt_tokens", "shared_tokens", "title_tokens", "decoding_over_prefill":
    {normaliser: ratio}, "objectives": {label: {"ratio", "low", "high"} of a training step to SFT's}, "from":
    {fact: file}}.
    """
    text = files("bearray.planning").joinpath("measured.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run's windows and their lengths in tokens. Means decide time, the longest decide memory."""

    train_windows: int = 10_000
    """Windows of an epoch."""
    valid_windows: int = 5_000
    """Windows decoded after each epoch."""
    test_windows: int = 5_000
    """Windows of the test."""
    prompt_tokens: float = field(default_factory=lambda: float(measured_facts()["prompt_tokens"]))
    shared_tokens: float = field(default_factory=lambda: float(measured_facts()["shared_tokens"]))
    """Tokens that all prompts begin with."""
    answer_tokens: float = field(default_factory=lambda: float(measured_facts()["title_tokens"]) + 1)
    """A title and the end of the sequence."""
    longest_prompt: int = field(default_factory=lambda: int(measured_facts()["longest_prompt_tokens"]))
    longest_answer: int = 32
    choices: int = 1_500
    """First tokens that a title may have: the widest node of the trie."""
    titles: int = 6_000
    """Of the catalogue."""
    decoding_over_prefill: Mapping[str, float] = field(
        default_factory=lambda: dict(measured_facts()["decoding_over_prefill"])
    )
    """Normaliser -> decoding a user over computing its prompt."""
    source: str = "Book's titles and a tokenizer of this project (benchmarks/results/decoding-cpu.json)"
    """Where the numbers of tokens are from."""

    def __post_init__(self) -> None:
        for name in ("train_windows", "valid_windows", "test_windows", "choices", "titles"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.prompt_tokens <= self.longest_prompt:
            raise ConfigError(
                f"prompt_tokens is {self.prompt_tokens:g} on average and {self.longest_prompt} at most; "
                "both must "
                "be above 0, and the longest prompt at least as long as the mean"
            )
        if not 0 < self.answer_tokens <= self.longest_answer:
            raise ConfigError(
                f"answer_tokens is {self.answer_tokens:g} on average and {self.longest_answer} at most; "
                "both must "
                "be above 0, and the longest answer at least as long as the mean"
            )
        if not 0 <= self.shared_tokens <= self.prompt_tokens:
            raise ConfigError(
                f"shared_tokens is {self.shared_tokens:g}; it must be at least 0 and at most the prompt's "
                f"{self.prompt_tokens:g} tokens"
            )

    def window_tokens(self, micro_batch: int) -> float:
        """Tokens of a training window that are computed: the prompts' common start once a micro-batch."""
        return self.prompt_tokens - self.shared_tokens * (1 - 1 / micro_batch) + self.answer_tokens
