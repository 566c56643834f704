"""Files that a reader finds all together or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bearray.errors import StorageError


@contextmanager
def replaced_together(target: Path, *, last: str) -> Iterator[Path]:
    """A scratch folder whose files are moved into `target` when the block ends well, the file `last` after
    all others: who finds a new page finds all that belongs to it.

    Raises:
        StorageError: the files cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target) as folder:
            scratch = Path(folder)
            yield scratch
            files = [f.relative_to(scratch) for f in sorted(scratch.rglob("*")) if f.is_file()]
            for file in sorted(files, key=lambda file: file == Path(last)):
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / file, target / file)
    except OSError as error:
        raise StorageError(f"cannot write the report to {target}: {error}") from error


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Texts by relative name, in UTF-8 with plain line ends."""
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
