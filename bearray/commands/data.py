"""The subcommands of `bearray data`; tyro makes them from the signatures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tyro

FetchName = Literal["office", "book", "toy", "clothing"]


def prepare(
    *,
    out: Path,
    reviews: Path | None = None,
    metadata: Path | None = None,
    csv_folder: Path | None = None,
    interactions: Path | None = None,
    items: Path | None = None,
    k_core: int | None = None,
    ratio: str = "8:1:1",
    force: bool = False,
) -> None:
    """Turn raw files into a data set: items.parquet and sequences_{train,valid,test}.parquet.

    Give one kind of input: --interactions with --items, or --reviews with --metadata, or --csv-folder.

    Args:
        out: Folder to create. It appears complete or not at all.
        reviews: Raw Amazon reviews (.json or .json.gz; 2014 and 2018 layouts).
        metadata: Raw Amazon product metadata that goes with the reviews.
        csv_folder: Folder as MSL and BEAR publish it: id2name4Rec.json, train*.csv, test*.csv, perhaps
            valid*.csv.
        interactions: Table with user_id, item_id, timestamp (.csv, .tsv, .csv.gz, .parquet).
        items: Table with item_id, title.
        k_core: Drop users and items with fewer interactions than this, until none is left. Default: 5 for raw
            dumps, off for tables, which are taken to be filtered already; 1 turns it off for dumps, too.
        ratio: Shares of train, validation and test windows, in order of time.
        force: Replace the output folder if it is not empty.
    """
    from bearray.data.prepare import prepare as run

    result = run(
        out,
        reviews=reviews,
        metadata=metadata,
        csv_folder=csv_folder,
        interactions=interactions,
        items=items,
        k_core=k_core,
        ratio=ratio,
        force=force,
    )
    _report(result.path, result.notes)


def fetch(
    name: tyro.conf.Positional[FetchName],
    *,
    out: Path | None = None,
    base_url: str | None = None,
    force: bool = False,
) -> None:
    """Download a published data set, check its hashes and prepare it. Run again to resume.

    Args:
        name: Which one.
        out: Folder to create (default: data/NAME).
        base_url: Mirror to read from instead of GitHub.
        force: Replace the output folder if it is not empty.
    """
    from bearray.data.fetch import fetch as run

    result = run(name, out or Path("data") / name, base_url=base_url, force=force)
    _report(result.path, result.notes)


def check(
    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")], *, strict: bool = False
) -> None:
    """Check a data set; exit code 2 and the first fault if it has one.

    Args:
        path: Folder or URI (s3://...) of the data set.
        strict: Items without a title are a fault, too.
    """
    from bearray.data.summary import check_dataset

    result = check_dataset(path, strict=strict)
    windows = ", ".join(f"{count} {split}" for split, count in result["windows"].items())
    print(f"{result['path']}: good; {result['items']} items, windows: {windows}")
    for name, count in result["notes"].items():
        if count:
            print(f"  {name.replace('_', ' ')}: {count}")
    print(f"  content hash: {result['content_hash']}")


def stats(
    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")], *, json: bool = False
) -> None:
    """Describe a data set: users, items, density, windows, cold targets, titles.

    Args:
        path: Folder or URI (s3://...) of the data set.
        json: Print one JSON object.
    """
    from bearray.data.dataset import open_dataset
    from bearray.data.summary import dataset_stats

    _print_stats(dataset_stats(open_dataset(path)), as_json=json)


def demo(
    *, out: Path = Path("data/demo"), seed: int = 0, items: int = 600, users: int = 4_000, force: bool = False
) -> None:
    """Make the demo catalogue: invented films, series and viewers.

    Args:
        out: Folder to create.
        seed: Seed of the whole process; equal seeds give equal data.
        items: Films in the catalogue, about.
        users: Viewers.
        force: Replace the output folder if it is not empty.
    """
    from bearray.data.demo import make_demo

    _report(make_demo(out, seed=seed, items=items, users=users, force=force), {})


def _report(path: Path, notes: Mapping[str, int]) -> None:
    from bearray.data.dataset import open_dataset
    from bearray.data.summary import dataset_stats

    for name, count in notes.items():
        if count:
            print(f"{name.replace('_', ' ')}: {count}")
    _print_stats(dataset_stats(open_dataset(path)), as_json=False)
    print(f"written to {path}")


def _print_stats(values: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(values, indent=2))
        return
    from rich.table import Table

    from bearray.terminal import terminal

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in values.items():
        table.add_row(name.replace("_", " "), _text(value))
    terminal(soft_wrap=True).print(table)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " to ".join(_text(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
