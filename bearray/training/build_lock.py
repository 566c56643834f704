"""A build of DeepSpeed's small operation that was killed must not stop all later runs.

PyTorch marks a build by a file named `lock` in the extension's folder, and whoever finds it waits until it is
gone, for ever. It stays behind when the building process is killed.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

LOCK = "lock"
STALE_SECONDS = 900.0
"""A build takes a minute or two; a lock this old has nobody behind it."""

logger = logging.getLogger(__name__)


def remove_stale_locks(root: str | Path | None = None, *, now: float | None = None) -> list[Path]:
    """Delete locks that a killed build has left behind.

    Args:
        root: the folder below which all extensions are; None: PyTorch's own (TORCH_EXTENSIONS_DIR).
        now: seconds since the epoch (None: the clock).

    Returns:
        The locks that were deleted.
    """
    place = Path(root or os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    now = time.time() if now is None else now
    removed = []
    for lock in sorted([*place.glob(f"*/{LOCK}"), *place.glob(f"*/*/{LOCK}")]):  # with and without a version
        try:
            if now - lock.stat().st_mtime <= STALE_SECONDS:
                continue
            lock.unlink()
        except FileNotFoundError:  # its build has ended, or another worker was faster
            continue
        except OSError as error:
            logger.warning("%s is left from a build that was killed; delete it: %s", lock, error)
            continue
        logger.warning("%s was left from a build that was killed; deleted", lock)
        removed.append(lock)
    return removed
