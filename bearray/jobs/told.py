"""What a cluster's head tells of a storage: dataclasses that travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from bearray.errors import DataError
from bearray.plain import check_shape

T = TypeVar("T", bound="Told")


@dataclass(frozen=True, kw_only=True)
class Told:
    """A dataclass of plain values, and of lists of others like it."""

    SHAPE: ClassVar[Mapping[str, Any]]
    """Its plain fields, for `check_shape`."""
    PARTS: ClassVar[Mapping[str, type[Told]]] = {}
    """The others: lists of what."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
        """The inverse of `to_dict`.

        Raises:
            DataError: these are not its values.
        """
        try:
            check_shape(values, cls._shape(), "the cluster's answer")
            return cls._built(values)
        except (TypeError, DataError) as error:
            raise DataError(
                f"the cluster's answer is of another version of bearray than this one ({error}); "
                "`ray up` again installs this one there"
            ) from error

    @classmethod
    def _shape(cls) -> dict[str, Any]:
        return {**cls.SHAPE, **{f"{name}!": [part._shape()] for name, part in cls.PARTS.items()}}

    @classmethod
    def _built(cls: type[T], values: Mapping[str, Any]) -> T:
        parts = {name: [part._built(each) for each in values[name]] for name, part in cls.PARTS.items()}
        return cls(**{**values, **parts})
