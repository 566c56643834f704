"""Settings of single methods as published, and their small counterparts."""

from __future__ import annotations

from collections.abc import Collection

PREFERENCE = ("sdpo", "sdpo_bear", "dpo", "dmpo", "rosepo")
"""Objectives that compare answers with a frozen reference, and start from SFT."""

_AFTER_SFT = (*PREFERENCE, "grpo", "best_of_n")

_PUBLISHED = (
    (PREFERENCE, "train.batch_size=64"),
    (("sprec",), "train.lr=2e-5"),
    (("grpo", "best_of_n"), "train.lr=1e-5"),
    (("grpo", "best_of_n"), "train.epochs=2"),
)
_SMALL = (
    (_AFTER_SFT, "train.lr=4e-4"),
    (_AFTER_SFT, "train.epochs=1"),
    (("grpo", "best_of_n"), "objective.rollouts=8"),
)


def published_settings(methods: Collection[str], *, small: bool = False) -> tuple[str, ...]:
    """`SweepConfig.method_settings` for those of some methods that have settings of their own.

    Args:
        methods: labels, which are objectives' names here; others have none.
        small: for the cpu scale: after SFT a fifth of its rate and a third of its epochs, and half of the
            published rollouts. Otherwise the paper's: S-DPO and its kin with 64 windows a step, SPRec with a
            rate of 2e-5; GRPO and best-of-N with MiniOneRec's rate and epochs.
    """
    rows = (
        (tuple(m for m in names if m in methods), text) for names, text in (_SMALL if small else _PUBLISHED)
    )
    return tuple(f"{','.join(names)}:{text}" for names, text in rows if names)
