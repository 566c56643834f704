"""Brings the results of a sweep, or of the paper's sweeps, to this machine."""

from __future__ import annotations

import contextlib
import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

from bearray.errors import ConfigError, MissingFileError, ResourceError, ResumeError
from bearray.jobs.bar import files_progress
from bearray.jobs.copying import UNFINISHED, Copied, copy_files, not_here
from bearray.lock import FOLDER as LOCK
from bearray.paper.stored import RECORD, read_record, sweeps_in
from bearray.runs import CHECKPOINTS, SWEEP, Storage


def fetch(storage: str, target: Path, *, cluster_file: Path | None, checkpoints: bool) -> str:
    """Copy a storage here; what is here already and unchanged is left alone, what is no longer there stays.

    Args:
        storage: a URI, or a folder: of the cluster's head if `cluster_file` is given, else of this machine.
        target: a folder, new or with an earlier copy.
        cluster_file: what `ray up` was given; the files then come by rsync over ssh.
        checkpoints: bring the runs' checkpoints, too; they are most of the bytes.

    Returns:
        What was brought, in words.

    Raises:
        ConfigError: cluster_file with a URI, or one that is no cluster file.
        MissingFileError: there is no sweep.
        ResumeError: the target holds another sweep.
        StorageError: a file cannot be read or written.
        ResourceError: the cluster's head cannot be reached.
    """
    if cluster_file is not None and "://" in storage:
        raise ConfigError(f"{storage} is read from here; leave --cluster out")
    without = (LOCK,) if checkpoints else (LOCK, CHECKPOINTS)  # nobody is at work on a copy
    if cluster_file is not None:
        return _over_ssh(cluster_file, storage, target, without)
    source = Storage(storage)
    _check_same(source, target)
    todo, kept = not_here(source, target, without=without)
    with files_progress(len(todo), sum(file.info.size for file in todo)) as tell:
        copied = copy_files(source, target, todo, tell)
    return _in_words(copied, kept)


def _in_words(copied: Copied, kept: int) -> str:
    from rich.filesize import decimal

    said = f"{copied.brought} files brought ({decimal(copied.size)}), {kept} were here already"
    if copied.restless:
        names = ", ".join(copied.restless[:3])
        said += f"; {len(copied.restless)} changed while they were read ({names}): fetch again to bring them"
    return said


def _over_ssh(cluster_file: Path, place: str, target: Path, without: tuple[str, ...]) -> str:
    """From the head's disk, by Ray's own rsync, which leaves unchanged files alone and names the others."""
    config = read_cluster_file(cluster_file)

    def bring(folder: Path, excluded: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _rsync(copy.deepcopy(config) | {"rsync_exclude": excluded}, f"{place.rstrip('/')}/", f"{folder}/")
        except (RuntimeError, OSError) as error:
            raise ResourceError(
                f"{place} cannot be fetched from the head of {cluster_file}: {error}. It may not be there, "
                "or the machine cannot be reached by ssh: ray exec CLUSTER_FILE 'ls' shows that"
            ) from error

    with tempfile.TemporaryDirectory() as top:
        bring(Path(top), ["*/"])  # its own files: what kind of storage it is
        _check_same(Storage(top), target, named=place)
    bring(target, [*(f"{folder}/" for folder in without), f"*{UNFINISHED}"])
    return "brought by rsync"


def _rsync(config: dict[str, Any], source: str, target: str) -> None:
    """Ray prints what it does, which belongs to standard error here.

    Raises:
        RuntimeError: rsync, ssh or Ray's configuration failed.
    """
    import click
    from ray.autoscaler.sdk import rsync

    with contextlib.redirect_stdout(sys.stderr):
        try:
            rsync(config, source=source, target=target, down=True)
        except click.ClickException as error:
            raise RuntimeError(error.message) from error


def read_cluster_file(path: Path) -> dict[str, Any]:
    """A file for `ray up`.

    Raises:
        MissingFileError: there is none.
        ConfigError: it is none.
    """
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no cluster file {path}") from error
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the cluster file {path} cannot be read: {error}") from error
    if not isinstance(config, dict) or not {"cluster_name", "provider"} <= set(config):
        raise ConfigError(f"{path} is no cluster file: it has no cluster_name or no provider")
    return config


def _check_same(source: Storage, target: Path, named: str | None = None) -> None:
    """Two sweeps in one folder would be reported as one.

    Args:
        named: what the source is called, where it is a copy of some of the files.

    Raises:
        MissingFileError: the source is no storage of a sweep or of the paper.
        ResumeError: the target is of another one.
    """
    here = Storage(str(target))
    if source.exists(SWEEP):
        mixed = here.exists(RECORD) or not _same_sweep(source, here)
    elif source.exists(RECORD):
        mixed = here.exists(SWEEP) or not _same_data(source, here)
        mixed = mixed or not all(_same_sweep(source.child(n), here.child(n)) for n in sweeps_in(source))
    else:
        raise MissingFileError(
            f"{named or source.root} holds no sweep that can be read from here (no {SWEEP}, and no {RECORD} "
            "either). If it is on the cluster's own disks, name the file that `ray up` was given: "
            "--cluster cluster/FILE.yaml"
        )
    if mixed:
        raise ResumeError(f"{target} holds another sweep; choose another folder with --to, or move that one")


def _same_sweep(there: Storage, here: Storage) -> bool:
    """Whether what is here is nothing, or the same sweep; a later call may have given it more seeds."""
    if not here.exists(SWEEP):
        return True
    contents = [storage.read_json(SWEEP) for storage in (there, here)]
    for content in contents:
        content["sweep"] = {k: v for k, v in content.get("sweep", {}).items() if k != "seeds"}
    return contents[0] == contents[1]


def _same_data(there: Storage, here: Storage) -> bool:
    """Whether what is here is nothing, or of the same data sets; a later call may have added some."""
    if not here.exists(RECORD):
        return True
    new, old = (read_record(storage)["data"] for storage in (there, here))
    return all(new[name].get("content_hash") == old[name].get("content_hash") for name in {*new} & {*old})
