"""What a reader is: one way into the project, with a good sample and a read that checks what was promised."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.files import damage

Read = Callable[[Path, random.Random], None]


def nothing(folder: Path) -> None:
    """The sample of a reader of values, not of files."""


def undamaged(folder: Path, rng: random.Random) -> str:
    return "values drawn by the reader"


def damage_in(*names: str) -> Callable[[Path, random.Random], str]:
    """Only in these folders of the sample: the others have readers of their own."""
    return lambda folder, rng: damage(folder / rng.choice(names), rng)


@dataclass(frozen=True)
class Reader:
    """One way into the project."""

    name: str
    make: Callable[[Path], None]
    """Writes a good sample into an empty folder."""
    read: Read
    """Reads a folder that may be damaged. Raises BearrayError for what it refuses, AssertionError where a
    promise is broken."""
    damage: Callable[[Path, random.Random], str] = damage
    share: float = 1.0
    """How often, relative to the others."""
    also_draws: bool = False
    """It draws options beside what it reads, so that good files, too, may be refused."""

    @property
    def draws(self) -> bool:
        """Whether it draws values of its own, beside files or instead of them."""
        return self.also_draws or self.damage is undamaged
