"""Soft tokens: places of a prompt that hold a projected vector instead of a word's embedding.

A soft token is a number from `FIRST` on, far beyond any vocabulary, so that a prompt stays a list of
integers. `SoftEmbedding` takes the place of a model's input embedding and is the only part that knows what
they stand for:

    x(token t) = E[t]                            frozen
    x(soft token k of a kind) = P_kind(v_k)      v_k frozen, P_kind trained
    x(BLANK) = mean of E                         what `transformers` gives a new token by default

Axis letters: S soft tokens, D hidden size of the language model, U histories.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

SoftKind = Literal["item", "user"]

FIRST = 1 << 30
_ROOM = 1 << 28
"""Soft tokens of a kind; all fit into 32 bits."""
_STARTS: dict[SoftKind, int] = {"item": FIRST, "user": FIRST + _ROOM}
BLANK = FIRST + 3 * _ROOM
"""A soft token that stands for no vector, [PH] in LLaRA."""

TRAINED, REFERENCE = "default", "reference"
"""Names of what is trained and of its frozen copy, as PEFT's adapters have them."""


def soft_token(kind: SoftKind, number: int) -> int:
    """The soft token of a vector by its number."""
    if not 0 <= number < _ROOM:
        raise ValueError(f"there is no soft token for {kind} {number}; numbers are below {_ROOM}")
    return _STARTS[kind] + number


def blanked(ids: Tensor) -> Tensor:
    """The same tokens with every soft one blank."""
    return ids.masked_fill(ids >= FIRST, BLANK)


class UserTable:
    """Histories by number: what a soft token of kind "user" stands for. Equal histories have one number."""

    def __init__(self) -> None:
        self._histories: list[tuple[int, ...]] = []
        self._number: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._histories)

    def number(self, titles: Sequence[int]) -> int:
        """The number of a history of title ids, oldest first."""
        history = tuple(titles)
        found = self._number.setdefault(history, len(self._histories))
        if found == len(self._histories):
            self._histories.append(history)
        return found

    def __getitem__(self, number: int) -> tuple[int, ...]:
        return self._histories[number]

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Forget the histories that are new inside; for one thread at a time."""
        before = len(self._histories)
        try:
            yield
        finally:
            for history in self._histories[before:]:
                del self._number[history]
            del self._histories[before:]


class SoftVectors(Protocol):
    """The frozen vectors behind soft tokens."""

    def widths(self) -> dict[SoftKind, int]:
        """Size of the vectors of each kind that there is."""

    def lookup(self, kind: SoftKind, numbers: Tensor) -> Tensor:
        """[S] int64 numbers -> [S, width] float32, on the device of `numbers`."""

    def save(self, folder: Path) -> None:
        """Write them as files into a folder that exists."""


class SoftEmbedding(nn.Module):
    """A model's input embedding that also reads soft tokens.

    Projectors compute in float32, also on a bfloat16 model. Kinds without a projector are blank.

    Args:
        base: the model's own input embedding.
        projectors: by kind.
        vectors: what they project; None: nothing, all soft tokens are blank.
    """

    def __init__(
        self,
        base: nn.Module,
        projectors: Mapping[SoftKind, nn.Module] | None = None,
        vectors: SoftVectors | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.projectors = nn.ModuleDict(
            {kind: nn.ModuleDict({TRAINED: module}) for kind, module in (projectors or {}).items()}
        )
        # No part of the module: they are frozen, so no engine needs to spread or to reduce them.
        self.vectors = vectors
        self.active = TRAINED
        blank = self.weight.detach().float().mean(0).to(self.weight.dtype)
        self.blank: Tensor
        self.register_buffer("blank", blank, persistent=False)

    @property
    def weight(self) -> Tensor:
        """[V, D] of the model's own embedding."""
        return cast(Tensor, self.base.weight)

    @property
    def kinds(self) -> tuple[SoftKind, ...]:
        return cast("tuple[SoftKind, ...]", tuple(self.projectors))

    def trained(self) -> dict[str, nn.Parameter]:
        """What is trained, by kind and parameter."""
        return {
            f"{kind}.{name}": parameter
            for kind in self.kinds
            for name, parameter in self._projector(kind, TRAINED).named_parameters()
        }

    def add_reference(self) -> None:
        """Put a frozen copy beside each projector that has none."""
        for kind in self.kinds:
            own = cast(nn.ModuleDict, self.projectors[kind])
            if REFERENCE not in own:
                own[REFERENCE] = copy.deepcopy(own[TRAINED]).requires_grad_(False)

    @property
    def has_reference(self) -> bool:
        return any(REFERENCE in cast(nn.ModuleDict, own) for own in self.projectors.values())

    def forward(self, input_ids: Tensor) -> Tensor:
        """[...] int64 -> [..., D]."""
        soft = input_ids >= FIRST
        embedded: Tensor = self.base(input_ids.masked_fill(soft, 0))
        always = self._always_projects()
        if not always and not bool(soft.any()):
            return embedded
        ids, states = input_ids.flatten(), embedded.flatten(0, -2)
        states = torch.where(soft.flatten()[:, None], self.blank.to(states.dtype), states)
        for kind in self.kinds:
            number = ids - _STARTS[kind]
            here = ((number >= 0) & (number < _ROOM)).nonzero()[:, 0]
            if len(here):
                states = states.index_copy(0, here, self._project(kind, number[here]).to(states.dtype))
            elif always:
                states = states + 0 * self._project(kind, None).sum().to(states.dtype)
        return states.unflatten(0, input_ids.shape)

    def _always_projects(self) -> bool:
        """Whether projectors must take part in a pass without soft tokens: gradients are reduced over
        workers, some of which may have none; and partitioned weights are gathered by all workers at once."""
        weights = list(self.projectors.parameters())
        training = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        return training or any(hasattr(w, "ds_id") for w in weights)

    def _project(self, kind: SoftKind, numbers: Tensor | None) -> Tensor:
        """[S, D] of the vectors by number; None: of one vector of zeros."""
        assert self.vectors is not None
        if numbers is None:
            vectors = torch.zeros(1, self.vectors.widths()[kind], device=self.weight.device)
        else:
            with torch.no_grad():
                vectors = self.vectors.lookup(kind, numbers)
        projected: Tensor = self._projector(kind, self.active)(vectors)
        return projected

    def _projector(self, kind: SoftKind, which: str) -> nn.Module:
        return cast(nn.ModuleDict, self.projectors[kind])[which]


def soft_embedding(model: nn.Module) -> SoftEmbedding | None:
    """The soft embedding in a model, under whatever wrappers; None if it has none."""
    return next((part for part in model.modules() if isinstance(part, SoftEmbedding)), None)
