"""`bearray objectives` and `bearray decoders`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from typing import Any


def objectives(*, json: bool = False) -> None:
    """List the losses: name, what each needs beyond logits, the paper it is from.

    Args:
        json: Print a JSON list of {name, needs, source}.
    """
    from bearray.objectives import list_objectives

    _show(list_objectives(), json)


def decoders(*, json: bool = False) -> None:
    """List the decoders: name, what each needs, where it is from.

    Args:
        json: Print a JSON list of {name, needs, source}.
    """
    from bearray.decoding import list_decoders

    _show(list_decoders(), json)


def _show(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json_format.dumps(list(rows), indent=2))
        return
    from rich.table import Table

    from bearray.terminal import terminal

    table = Table("name", "needs", "source")
    for row in rows:
        table.add_row(str(row["name"]), ", ".join(row["needs"]) or "-", str(row["source"]))
    terminal().print(table)
