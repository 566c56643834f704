"""Vectors of items as a table, vectors of users as SASRec's last state after their history.

They are kept in every checkpoint, because a projector means nothing without the vectors it was trained on,
and a SASRec that was trained again elsewhere has others.

Axis letters: T titles, S soft tokens, D width of a vector.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bearray.array_files import read_arrays, write_arrays
from bearray.backbones.soft import SoftKind, UserTable
from bearray.baselines.data import PAD
from bearray.baselines.sasrec import SASRec
from bearray.config import SASRecConfig, override
from bearray.errors import ConfigError, DataError

FILE = "vectors.safetensors"
_KIND, _VERSION = "vectors of soft tokens", 1
_SIZES = ("layers", "hidden", "heads", "max_history")
_SASREC = "sasrec."


class FrozenVectors:
    """What soft tokens stand for (`bearray.backbones.soft.SoftVectors`).

    Args:
        items: [T, D] float, a vector of each title.
        sasrec: the model that users' vectors are states of; None: there are none.
        config: its settings.
        users: the histories behind user tokens; the table of the backbone that writes the prompts.
    """

    def __init__(
        self,
        items: Tensor,
        users: UserTable,
        sasrec: SASRec | None = None,
        config: SASRecConfig | None = None,
    ) -> None:
        self.items = items.detach().float()
        self.users = users
        self.sasrec = None if sasrec is None else sasrec.float().requires_grad_(False).eval()
        self.config = config or SASRecConfig()

    def widths(self) -> dict[SoftKind, int]:
        found: dict[SoftKind, int] = {"item": self.items.shape[1]}
        return found if self.sasrec is None else {**found, "user": self.sasrec.items.shape[1]}

    def lookup(self, kind: SoftKind, numbers: Tensor) -> Tensor:
        if kind == "item":
            if self.items.device != numbers.device:
                self.items = self.items.to(numbers.device)
            return self.items[numbers]
        assert self.sasrec is not None
        self.sasrec.to(numbers.device)
        histories = [self.users[number] for number in numbers.tolist()]
        return user_states(self.sasrec, histories, self.config.max_history)

    def tensors(self) -> dict[str, Tensor]:
        """All numbers by name, on the CPU."""
        found = {"items": self.items}
        if self.sasrec is not None:
            found |= {f"{_SASREC}{name}": value for name, value in self.sasrec.state_dict().items()}
        return {name: value.detach().cpu() for name, value in found.items()}

    def replace(self, tensors: dict[str, Tensor]) -> None:
        """Take other numbers of the same names and shapes, as `tensors` returns them."""
        self.items = tensors["items"].clone()
        if self.sasrec is not None:
            self.sasrec.load_state_dict(_below(tensors))

    def save(self, folder: Path) -> None:
        facts = {name: int(getattr(self.config, name)) for name in _SIZES}
        write_arrays(folder / FILE, self.tensors(), kind=_KIND, version=_VERSION, facts=facts)

    @classmethod
    def read(cls, folder: Path, users: UserTable) -> FrozenVectors:
        """What `save` has written.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is damaged or of something else.
        """
        arrays, facts = read_arrays(folder / FILE, kind=_KIND, version=_VERSION)
        try:
            config = override(SASRecConfig(), {name: facts[name] for name in _SIZES})
            items, weights = arrays["items"].clone(), _below(arrays)
            if items.dim() != 2 or not items.is_floating_point():
                raise ValueError(f"items is {items.dtype} {list(items.shape)}; it must be floats of 2 axes")
            sasrec = None
            if weights:
                table = weights["items"]
                if table.dim() != 2 or table.shape[1] != config.hidden:
                    raise ValueError(f"{_SASREC}items is {list(table.shape)}, not [titles, {config.hidden}]")
                if config.layers > len(weights):
                    raise ValueError(f"it has {len(weights)} weights for {config.layers} layers")
                with torch.device("meta"):  # a made-up header could choose any size: nothing is allocated
                    sasrec = SASRec(len(table), config)
                sasrec.load_state_dict(weights, assign=True)
            for name, values in arrays.items():
                if not values.isfinite().all():
                    raise ValueError(f"{name} has a value that is not a finite number")
            return cls(items, users, sasrec, config)
        except (ConfigError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise DataError(f"{folder / FILE} is damaged: {error}") from error


@torch.no_grad()
def user_states(sasrec: SASRec, histories: list[tuple[int, ...]], max_history: int) -> Tensor:
    """[U, D] SASRec's state after each history of title ids, of which it reads the newest ones."""
    padded = torch.full((len(histories), max_history), PAD, dtype=torch.long)
    for row, titles in enumerate(histories):
        newest = titles[-max_history:]
        padded[row, max_history - len(newest) :] = torch.tensor(newest, dtype=torch.long)
    return sasrec.hidden(padded.to(sasrec.items.device))[:, -1]


def _below(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(_SASREC): a.clone() for n, a in arrays.items() if n.startswith(_SASREC)}
