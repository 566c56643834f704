"""How a language model is asked for a chain of thought about a user and a title."""

from __future__ import annotations

from collections.abc import Sequence

from bearray.data.prompts import PromptTemplate


def chain_prompt(template: PromptTemplate, history: Sequence[str], title: str, *, liked: bool) -> str:
    """The text up to the chain of thought, in the layout of the recommendation prompts.

    Args:
        template: the data's wording.
        history: titles, oldest first.
        title: the title that is reasoned about.
        liked: the user did choose it.
    """
    told = "" if liked else "not "
    seen = ", ".join(f'"{name}"' for name in history)
    return (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n"
        f"Explain step by step why the user was {told}interested in the new {template.singular}: what the "
        f"history says about the user, what the new {template.singular} is like, and how the two fit.\n\n"
        f"### Input:\n{template.history_prefix}{seen}\n"
        f'The new {template.singular}: "{title}"\n\n'
        "### Response:\nLet's think step by step."
    )
