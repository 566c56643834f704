"""Brings the results of a sweep to this machine."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bearray.errors import ConfigError, MissingFileError, ResourceError, ResumeError, StorageError
from bearray.runs import CHECKPOINTS, Storage, inside
from bearray.tuning.sweep import SWEEP


def fetch(storage: str, target: Path, *, cluster_file: Path | None, checkpoints: bool) -> Path:
    """Copy a sweep's storage here; what is here already and no longer there stays.

    Args:
        storage: a URI, or a folder: of the cluster's head if `cluster_file` is given, else of this machine.
        target: a folder, new or with an earlier copy.
        cluster_file: what `ray up` was given; the files then come by rsync over ssh.
        checkpoints: bring the runs' checkpoints, too; they are most of the bytes.

    Returns:
        `target`.

    Raises:
        ConfigError: cluster_file with a URI, or one that is no cluster file.
        MissingFileError: there is no sweep.
        ResumeError: the target holds another sweep.
        ResourceError: the cluster's head cannot be reached.
    """
    if cluster_file is not None and "://" in storage:
        raise ConfigError(f"{storage} is read from here; leave --cluster out")
    copied = _over_ssh(cluster_file, storage) if cluster_file is not None else _copied(storage)
    without = () if checkpoints else (CHECKPOINTS,)
    with tempfile.TemporaryDirectory() as folder:
        copied(SWEEP, Path(folder), ())
        _check_same(Path(folder) / SWEEP, target)
    copied("", target, without)
    return target


Copy = Callable[[str, Path, tuple[str, ...]], None]
"""Copies a file of a storage ("": all of it) into a folder, but for folders of some names."""


def _copied(place: str) -> Copy:
    """From wherever bearray can read."""
    storage = Storage(place)
    if not storage.exists(SWEEP):
        raise MissingFileError(
            f"{storage.root} holds no sweep that can be read from here. If it is on the cluster's own "
            "disks, name "
            "the file that `ray up` was given: --cluster cluster/FILE.yaml"
        )

    def copy_(name: str, target: Path, without: tuple[str, ...]) -> None:
        for file in [name] if name else storage.files(without=without):
            here = Storage(str(target))
            here.write_bytes(inside(file), storage.read_bytes(file))

    return copy_


def _over_ssh(cluster_file: Path, place: str) -> Copy:
    """From the head's disk, by Ray's own rsync."""
    config = read_cluster_file(cluster_file)

    def copy_(name: str, target: Path, without: tuple[str, ...]) -> None:
        target.mkdir(parents=True, exist_ok=True)
        changed = copy.deepcopy(config) | {"rsync_exclude": [f"{folder}/" for folder in without]}
        try:
            _rsync(changed, f"{place.rstrip('/')}/{name}", f"{target}/")
        except (RuntimeError, OSError) as error:
            raise ResourceError(
                f"{place}/{name} cannot be fetched from the head of {cluster_file}: {error}. It may not "
                "be there, or "
                "the machine cannot be reached by ssh: ray exec CLUSTER_FILE 'ls' shows that"
            ) from error

    return copy_


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


def _check_same(new: Path, target: Path) -> None:
    """Two sweeps in one folder would be reported as one."""
    if not new.is_file():
        raise StorageError(f"{SWEEP} was not brought; the copy would be incomplete")
    old = target / SWEEP
    if old.is_file() and json.loads(old.read_bytes()) != json.loads(new.read_bytes()):
        raise ResumeError(f"{target} holds another sweep; choose another folder with --to, or move that one")
