"""`bearray data fetch`: the published data sets of BEAR's authors, by name.

The files lie in a public GitHub repository, pinned to one commit. Which files there are, their sizes and
their hashes (git blob ids) come from GitHub's listing of that commit: a commit names its content, so the
listing cannot change under the same commit id. The hashes are therefore not written in this file, they are
recorded, with SHA-256, in `source.json` beside the data, and a folder that has one is compared with it on a
later fetch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import stamina

from bearray.data.download import download, retriable
from bearray.data.folders import TITLE_FILES, read_folder
from bearray.data.prepare import PrepareResult
from bearray.data.storage import check_output
from bearray.data.write import write_dataset
from bearray.errors import ConfigError, DataError, MissingFileError, StorageError
from bearray.plain import parse_json

REPOSITORY = "Tiny-Snow/BEAR-WWW-2026"
COMMIT = "806210055922157cfd8f7f2e7ee392c3b7b863f0"
LISTING_URL = f"https://api.github.com/repos/{REPOSITORY}/git/trees/{COMMIT}?recursive=1"
RAW_URL = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"
NAMES = ("office", "book", "toy", "clothing")
SOURCE_FILE = "source.json"


@dataclass(frozen=True)
class RemoteFile:
    """One file of the repository."""

    path: str
    size: int
    blob: str
    """git blob id, hex."""


def fetch(
    name: str,
    out: str | Path,
    *,
    base_url: str | None = None,
    force: bool = False,
    attempts: int = 5,
    wait: float = 0.5,
) -> PrepareResult:
    """Download a published data set, check it and write it as a data set.

    An interrupted download goes on where it stopped when the same command is given again: files and parts
    wait in a hidden folder beside `out` whose name ends in ".download"; it is removed at the end.

    Args:
        name: office, book, toy or clothing.
        out: the folder to create.
        base_url: a mirror that holds `listing.json` (GitHub's listing) and the files under their own paths.
        force: replace `out` if it is not empty.
        attempts: tries for each request.
        wait: seconds before a second try.

    Raises:
        ConfigError: an unknown name.
        MissingFileError: the repository does not have the data set.
        DataError: a file whose content is not what the commit, or `source.json` of an earlier fetch, says; or
            what `read_folder` finds.
        StorageError: the server cannot be reached, or `out` cannot be written.
    """
    if name not in NAMES:
        raise ConfigError(f"data set is {name!r}; it must be one of {', '.join(NAMES)}")
    out = check_output(Path(out), force=force)
    listing_url = f"{base_url.rstrip('/')}/listing.json" if base_url else LISTING_URL
    raw_url = base_url.rstrip("/") if base_url else RAW_URL
    scratch = out.parent / f".{out.name}.{name}-{COMMIT[:7]}.download"
    scratch.mkdir(exist_ok=True)
    with httpx.Client(timeout=30.0, headers={"User-Agent": "bearray"}) as client:
        files = select_files(_listing(client, listing_url, attempts, wait), name)
        _compare(out / SOURCE_FILE, files)
        recorded = []
        for file in files:
            target = scratch / file.path.rsplit("/", 1)[-1]
            sha256 = download(
                client,
                f"{raw_url}/{file.path}",
                target,
                size=file.size,
                blob=file.blob,
                attempts=attempts,
                wait=wait,
            )
            recorded.append({"path": file.path, "size": file.size, "git_blob": file.blob, "sha256": sha256})
    prepared = read_folder(scratch)
    source = {"repository": REPOSITORY, "commit": COMMIT, "url": raw_url, "files": recorded}
    path = write_dataset(
        out,
        prepared.items,
        prepared.splits,
        extra={SOURCE_FILE: json.dumps(source, indent=2) + "\n"},
        force=force,
    )
    for file in files:
        (scratch / file.path.rsplit("/", 1)[-1]).unlink()
    if not any(scratch.iterdir()):
        scratch.rmdir()
    return PrepareResult(path=path, notes=prepared.notes)


def _listing(client: httpx.Client, url: str, attempts: int, wait: float) -> Mapping[str, Any]:
    try:
        for attempt in stamina.retry_context(
            on=retriable, attempts=attempts, timeout=None, wait_initial=wait, wait_jitter=wait
        ):
            with attempt:
                response = client.get(url, follow_redirects=True)
                response.raise_for_status()
        listing: Any = parse_json(response.content)
    except httpx.HTTPStatusError as error:
        raise StorageError(f"{url} answered {error.response.status_code}; cannot list the files") from error
    except httpx.HTTPError as error:
        raise StorageError(f"{url} could not be reached in {attempts} tries: {error}") from error
    except ValueError as error:
        raise DataError(f"{url} is not JSON: {error}") from error
    if not isinstance(listing, dict) or not isinstance(listing.get("tree"), list):
        raise DataError(f"{url} is not a listing of a git tree: it has no list 'tree'")
    if not all(isinstance(entry, dict) for entry in listing["tree"]):
        raise DataError(f"{url} is not a listing of a git tree: 'tree' holds more than objects")
    if listing.get("truncated"):
        raise DataError(f"{url} is cut short by the server; cannot tell which files there are")
    return listing


def select_files(listing: Mapping[str, Any], name: str) -> list[RemoteFile]:
    """The titles and the windows of a data set among all files of a git tree listing.

    The folder is the one under data/ whose name has `name` as a word ("Toy", "Amazon_Books", ...).

    Raises:
        MissingFileError: there is no such folder, or it lacks titles, training or test windows.
        DataError: several folders fit, or an entry without a size and a git blob id.
    """
    wanted = re.compile(rf"{'|'.join(map(re.escape, TITLE_FILES))}|(train|valid|test)(_\d+)?\.csv")
    folders: dict[str, list[RemoteFile]] = {}
    for entry in listing["tree"]:
        path = str(entry.get("path", ""))
        parts = path.split("/")
        if (
            entry.get("type") != "blob"
            or len(parts) != 3
            or parts[0] != "data"
            or not wanted.fullmatch(parts[2])
        ):
            continue
        if re.search(rf"(?<![a-z]){name}s?(?![a-z])", parts[1].lower()):
            size, blob = entry.get("size"), entry.get("sha")
            if type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]+", str(blob)):
                raise DataError(f"the listing gives {path} the size {size!r} and the blob id {blob!r}")
            file = RemoteFile(path, size, str(blob))
            folders.setdefault(parts[1], []).append(file)
    if not folders:
        raise MissingFileError(f"{REPOSITORY} at {COMMIT[:7]} has no folder data/... for {name!r}")
    if len(folders) > 1:
        raise DataError(f"several folders fit {name!r}: {', '.join(sorted(folders))}")
    ((folder, files),) = folders.items()
    kinds = {re.split(r"[_.]", file.path.rsplit("/", 1)[-1])[0] for file in files}
    missing = [kind for kind in ("train", "test") if kind not in kinds]
    if not any(kind.startswith("id2name") for kind in kinds):
        missing.append(TITLE_FILES[0])
    if missing:
        raise MissingFileError(f"data/{folder} of {REPOSITORY} lacks {', '.join(missing)}")
    return sorted(files, key=lambda file: file.path)


def _compare(source_file: Path, files: list[RemoteFile]) -> None:
    """The files are those that an earlier fetch recorded."""
    if not source_file.is_file():
        return
    try:
        recorded = {
            entry["path"]: entry["git_blob"] for entry in parse_json(source_file.read_bytes())["files"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source_file} cannot be read: {error}; delete it to fetch afresh") from error
    for file in files:
        if recorded.get(file.path, file.blob) != file.blob:
            raise DataError(
                f"{file.path} has git blob id {file.blob}, but {source_file} recorded "
                f"{recorded[file.path]} when it was first fetched; the source has changed"
            )
