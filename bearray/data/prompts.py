"""The prompt: the only place that words it (METHODS: the BIGRec/MSL/BEAR text in the Alpaca layout).

The published training code writes one space after "request.", its inference code two; bearray writes one in
both, because a model should be asked with the words it was taught with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bearray.errors import ConfigError


@dataclass(frozen=True)
class PromptTemplate:
    """The three words in which domains differ."""

    plural: str
    """What a history is made of: "books"."""
    past: str
    """What the user has done with them: "read"."""
    singular: str
    """What is to be recommended: "book"."""

    def __post_init__(self) -> None:
        for field in ("plural", "past", "singular"):
            word = getattr(self, field)
            if not word.strip() or "\n" in word:
                raise ConfigError(f"prompt word {field!r} is {word!r}; it must be a word or two on one line")

    @property
    def instruction(self) -> str:
        """The sentence under "### Instruction:"."""
        return (
            f"Given a list of {self.plural} the user has {self.past} before, "
            f"please recommend a new {self.singular} that the user likes to the user."
        )

    @property
    def history_prefix(self) -> str:
        """What stands before the titles under "### Input:"."""
        return f"The user has {self.past} the following {self.plural} before: "


DOMAINS: dict[str, PromptTemplate] = {
    # Published wordings.
    "toy": PromptTemplate("toys", "played", "toy"),
    "book": PromptTemplate("books", "read", "book"),
    "clothing": PromptTemplate("clothing", "worn", "clothing"),
    "office": PromptTemplate("office products", "used", "office product"),
    "beauty": PromptTemplate("beauty products", "used", "beauty product"),
    "game": PromptTemplate("video games", "played", "video game"),
    "music": PromptTemplate("music", "listened to", "music"),
    # Ours.
    "steam": PromptTemplate("video games", "played", "video game"),
    "movie": PromptTemplate("movies", "watched", "movie"),
    "demo": PromptTemplate("films", "watched", "film"),
    "generic": PromptTemplate("items", "interacted with", "item"),
}
"""Wording by domain name; "generic" serves data sets whose name tells nothing."""

PREAMBLE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request. "
)


def template_for(
    dataset_name: str, domain: str = "auto", domain_words: Sequence[str] | None = None
) -> PromptTemplate:
    """The wording for a data set: own words, else the named domain, else what the data set's name says.

    With "auto" the first word of the data set's name that is a domain, or its plural, decides ("Amazon_Books"
    is book, "steam100k" steam, "Musical_Instruments" none), else the wording is generic.

    Raises:
        ConfigError: an unknown domain, or `domain_words` that are not three words.
    """
    if domain_words is not None:
        if len(domain_words) != 3:
            raise ConfigError(
                f"domain_words is {tuple(domain_words)!r}; it must be three: "
                "plural noun, past participle, singular noun"
            )
        return PromptTemplate(*domain_words)
    if domain == "auto":
        words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", dataset_name).lower())
        found = (name for word in words for name in DOMAINS if word in (name, f"{name}s"))
        return DOMAINS[next(found, "generic")]
    if domain not in DOMAINS:
        raise ConfigError(
            f"domain is {domain!r}; it must be auto or one of {', '.join(DOMAINS)}. "
            "For your own domain set domain_words: plural noun, past participle, singular noun"
        )
    return DOMAINS[domain]


def render_prompt(template: PromptTemplate, history_titles: Sequence[str]) -> str:
    """The model's input up to the answer. Titles are quoted and joined by ", "; nothing is cut here.

    Raises:
        ConfigError: no title.
    """
    return "".join(prompt_pieces(template, history_titles))


def prompt_pieces(template: PromptTemplate, history_titles: Sequence[str]) -> list[str]:
    """The prompt in pieces: one that ends behind each title's closing quote, and what follows the last title.

    Raises:
        ConfigError: no title.
    """
    if not history_titles:
        raise ConfigError("history_titles is empty; a prompt needs at least one title")
    start = f"{PREAMBLE}\n\n### Instruction:\n{template.instruction}\n\n### Input:\n{template.history_prefix}"
    first, *others = (f'"{title}"' for title in history_titles)
    return [start + first, *(f", {title}" for title in others), "\n \n\n### Response:\n"]


def render_prompt_without_history(template: PromptTemplate) -> str:
    """The same prompt without its input block: what the model is asked when nothing is known of the user
    (CFT, arXiv 2410.22809)."""
    return f"{PREAMBLE}\n\n### Instruction:\n{template.instruction}\n\n### Response:\n"


def render_answer(title: str) -> str:
    """The answer: the title in double quotes (the tokenizer's end-of-sequence token follows it)."""
    return f'"{title}"'
