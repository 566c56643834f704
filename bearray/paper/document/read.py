"""What lies in the storage of the paper: the runs of every part, as far as there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.baselines.registry import BASELINES as ALL_BASELINES
from bearray.paper.config import D3, PaperConfig
from bearray.paper.document.methods import Method
from bearray.paper.parts import Part
from bearray.paper.stored import BASELINES, DECODED, RECORD, SENSITIVITY
from bearray.plain import check_shape
from bearray.report.collect import read_run
from bearray.report.files import read_json
from bearray.report.records import Run

RUNS = "runs"


def _key(method: str) -> str:
    """As `published.json` has it."""
    return method.lower().replace("-", "_")


_BASELINES = {_key(name) for name in ALL_BASELINES}


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the document is made from."""

    config: PaperConfig
    root: Path
    data: Mapping[str, Mapping[str, Any]]
    """By data set: stats and content_hash; of those that were opened."""
    runs: dict[str, tuple[Run, ...]]
    """By folder below the storage, as far as they were read."""
    methods: dict[tuple[Part, str], Method]
    """As far as they were asked for."""

    def of(self, folder: str) -> tuple[Run, ...]:
        """The run folders right below a folder of the storage, by name.

        Raises:
            DataError: a file in one of them is damaged.
        """
        if folder not in self.runs:
            where = self.root / folder
            names = sorted(p.parent.name for p in where.glob("*/config.json") if p.is_file())
            self.runs[folder] = tuple(read_run(where / name, f"{folder}/{name}") for name in names)
        return self.runs[folder]

    def method(self, part: Part, name: str) -> Method:
        """The row of a method, baselines and D3 as well as objectives."""
        if (part, name) not in self.methods:
            if name == D3:
                runs = self.of(f"{part.folder}/{DECODED}")
            elif name in _BASELINES:
                runs = tuple(r for r in self.of(f"{part.data_name}/{BASELINES}") if _key(r.method) == name)
            else:
                runs = tuple(r for r in self.of(f"{part.folder}/{RUNS}") if r.objective == name)
            self.methods[part, name] = Method(name=name, runs=runs)
        return self.methods[part, name]

    def objectives(self, part: Part) -> list[str]:
        """Objectives that have runs in a part, by name."""
        return sorted({r.objective for r in self.of(f"{part.folder}/{RUNS}")})

    def varied(self, part: Part) -> tuple[Run, ...]:
        """Runs in which lambda or xi is varied."""
        return self.of(f"{part.folder}/{SENSITIVITY}/{RUNS}")

    def stats(self, data_name: str) -> Mapping[str, Any]:
        """The numbers of a data set; empty where it was not opened yet."""
        return self.data.get(data_name, {}).get("stats", {})

    def everything(self) -> list[Run]:
        """All runs that were read, by id."""
        return sorted((run for runs in self.runs.values() for run in runs), key=lambda run: run.id)


def read_material(config: PaperConfig) -> Material:
    """The storage of the paper; runs are read as they are asked for.

    Raises:
        DataError: paper.json is damaged.
    """
    root = Path(config.storage)
    path = root / RECORD
    record = read_json(path) if path.exists() else {}
    check_shape(record, {"data": {"*": {"stats": dict}}}, str(path))
    return Material(config=config, root=root, data=record.get("data", {}), runs={}, methods={})
