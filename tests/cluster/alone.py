"""A program in namespaces of its own: no network but a loopback, no processes but its own, its own
/tmp/ray."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]

SETUP = """
set -e
ip link set lo up 2>/dev/null || python3 -c "$LOOPBACK_UP"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /tmp/ray "$RAY_FOLDER"
mount --bind "$RAY_FOLDER" /tmp/ray
"$@"
exit $?
"""
"""/dev/shm: of a size that holds Ray's objects, whatever the machine's own is. /run/sshd: sshd asks for it.
The shell stays, since the first process of a namespace must bury those that lost their parents."""

LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh22x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
"""
"""For machines without `ip`."""


def command(arguments: Sequence[str], ray_folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a program that is to run alone.

    Args:
        arguments: the program's.
        ray_folder: what it sees as /tmp/ray; its parent exists.
    """
    variables = {"RAY_FOLDER": str(ray_folder), "LOOPBACK_UP": LOOPBACK_UP}
    return [*NAMESPACES, "bash", "-c", SETUP, "alone", *arguments], {**os.environ, **variables}


def why_not(ray_folder: Path) -> str | None:
    """Why namespaces cannot be made here, or None where they can."""
    if shutil.which("unshare") is None:
        return "there is no `unshare` (Debian, Ubuntu: apt-get install util-linux)"
    words, environment = command(["true"], ray_folder)
    tried = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode == 0:
        return None
    said = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
    return f"{shlex.join(NAMESPACES)} is not permitted here ({said}); it is for root"
