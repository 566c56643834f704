"""Ray Tune keeps pickles, and opening one runs what its writer put into it: only one's own are opened."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from bearray.errors import StorageError


def check_own(folder: str) -> None:
    """Make sure that nobody else could have written into a folder of Ray Tune, before it is restored.

    Only for local folders and network file systems; who may write to a bucket is for its access rules to say.

    Args:
        folder: of one Tune experiment, a path or a URI.

    Raises:
        StorageError: a file or folder in it belongs to another user (not root), or everybody may write to it.
    """
    if "://" in folder:
        return
    place = Path(folder)
    me = _owner_of_new_files(place)
    for entry in (place, *sorted(place.rglob("*"))):
        about = entry.lstat()
        open_to_all = about.st_mode & stat.S_IWOTH and not stat.S_ISLNK(about.st_mode)
        if about.st_uid not in (me, 0) or open_to_all:
            why = "everybody may write to it" if open_to_all else f"it belongs to user {about.st_uid}"
            raise StorageError(
                f"{entry} is part of Ray Tune's state, which is pickled, and {why}: opening it could run "
                "what somebody else put there. Continue as the user who began the sweep, after making sure "
                f"that the files are yours (chmod -R o-w {folder}), or begin with another --storage"
            )


def _owner_of_new_files(folder: Path) -> int:
    """The user as this file system sees it; a network file system may map the process's to another one."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".owner-") as probe:
            return os.fstat(probe.fileno()).st_uid
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error}") from error
