"""STORAGE/efficiency: what was measured, one file a round, put together in efficiency.json.

    efficiency.json        settings, machine, all raw round times; what the tables are made of
    rounds/training-0000.json, rounds/decoding-0000.json
    rounds/training-passes.json, rounds/decoding-passes.json    what was counted, and the machine

A round's file is written when it ends, so that a rerun measures only what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bearray.config import differences
from bearray.efficiency.machine import check_same_machine
from bearray.errors import DataError, ResumeError
from bearray.provenance import git_revision, now
from bearray.runs import Storage

Record = dict[str, Any]
"""Plain JSON values."""

SCHEMA = 1
"""Of efficiency.json; raised where a reader of the old one would misread the new one."""
FOLDER, FILE, ROUNDS = "efficiency", "efficiency.json", "rounds"


class PartFolder:
    """The rounds of one part, training or decoding.

    Args:
        folder: STORAGE/efficiency.
        part: its name.
    """

    def __init__(self, folder: Storage, part: str) -> None:
        self.folder, self.part = folder.child(ROUNDS), part

    def _name(self, number: int) -> str:
        return f"{self.part}-{number:04d}.json"

    def missing(self, rounds: int) -> list[int]:
        """Numbers of the rounds that are still to be measured."""
        there = set(self.folder.names())
        return [n for n in range(rounds) if self._name(n) not in there]

    def add(self, record: Record) -> None:
        self.folder.write_json(self._name(record["round"]), record)

    @property
    def counted(self) -> bool:
        return self.folder.exists(f"{self.part}-passes.json")

    def begin(self, machine: Mapping[str, Any]) -> None:
        """Before anything is measured by this process.

        Raises:
            ResumeError: what is there was measured on another machine.
        """
        if self.counted:
            check_same_machine(self.folder.read_json(f"{self.part}-passes.json")["machine"], dict(machine))

    def add_counts(self, about: Record) -> None:
        """What was counted (`count_passes`), the machine, and what else the rows are computed from."""
        self.folder.write_json(f"{self.part}-passes.json", about)

    def read(self) -> Record | None:
        """Everything measured so far; None before anything was counted."""
        if not self.counted:
            return None
        names = [n for n in self.folder.names() if n.startswith(f"{self.part}-")]
        rounds = [self.folder.read_json(n) for n in names if n != f"{self.part}-passes.json"]
        return {**self.folder.read_json(f"{self.part}-passes.json"), "rounds": rounds}


def begin(folder: Storage, about: Mapping[str, Any]) -> None:
    """Start STORAGE/efficiency, or make sure that it can be continued.

    Args:
        folder: STORAGE/efficiency.
        about: "settings", "dataset", "data_hash", "base_model", "notes".

    Raises:
        ResumeError: it holds other settings or other data; the message names them.
        DataError: its file was written by a later version.
    """
    if folder.exists(FILE):
        old = read(folder)
        keys = ("settings", "dataset", "data_hash")
        changed = differences({k: old[k] for k in keys}, {k: about[k] for k in keys})
        if changed:
            raise ResumeError(
                f"{folder.root} was measured with other settings ({'; '.join(changed)}); repeat its settings "
                "to continue it, or choose another --storage"
            )
        return
    content = {
        "schema": SCHEMA,
        **about,
        "git": git_revision(),
        "created": now(),
        "finished": None,
        "training": None,
        "decoding": None,
    }
    folder.write_json(FILE, content)


def forget(folder: Storage) -> None:
    """Delete what was measured, and nothing else that may stand in its folder."""
    folder.delete(FILE)
    folder.delete(ROUNDS)


def gather(folder: Storage, *, finished: bool) -> Record:
    """Put the rounds into efficiency.json.

    Returns:
        Its content.
    """
    content = read(folder)
    content |= {part: PartFolder(folder, part).read() for part in ("training", "decoding")}
    content["finished"] = now() if finished else None
    folder.write_json(FILE, content)
    return content


def read(folder: Storage) -> Record:
    """efficiency.json.

    Raises:
        DataError: it is damaged, or of another schema.
    """
    content: Record = folder.read_json(FILE)
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise DataError(
            f"{folder.root}/{FILE} has schema {found!r}; this version of bearray reads schema {SCHEMA}"
        )
    return content
