"""Download one file: resumed where it broke off, retried, checked against a git blob id."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import stamina

from bearray.data.progress import byte_progress
from bearray.errors import DataError, MissingFileError, StorageError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
BLOCK = 1 << 16


class _Interrupted(Exception):
    """The connection ended before the file did."""


def retriable(error: Exception) -> bool:
    """Whether asking again may help: broken connections, timeouts, 429 and 5xx."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (httpx.TransportError, _Interrupted))


def hash_file(path: Path, size: int) -> tuple[str, str]:
    """(git blob id, SHA-256) of a file of `size` bytes."""
    blob, sha256 = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            blob.update(block)
            sha256.update(block)
    return blob.hexdigest(), sha256.hexdigest()


def download(
    client: httpx.Client,
    url: str,
    target: Path,
    *,
    size: int,
    blob: str,
    attempts: int = 5,
    wait: float = 0.5,
) -> str:
    """Download `url` to `target`, whose bytes must have the given size and git blob id.

    The bytes go to `target` + ".part"; a broken connection, or a later call, goes on from there (HTTP Range;
    a server that does not know ranges starts over). Timeouts, broken connections, 429 and 5xx are retried
    with growing, jittered waits. A finished `target` with the right hash is not downloaded again.

    Args:
        client: an open httpx client.
        url: what to read.
        target: where it ends.
        size: bytes.
        blob: git blob id, hex: SHA-1 of "blob {size}\\0" and the bytes.
        attempts: tries in all.
        wait: seconds before the second try; doubles.

    Returns:
        The file's SHA-256, hex.

    Raises:
        MissingFileError: the server does not have the file (404).
        DataError: the bytes are not those expected; the part is deleted.
        StorageError: no connection after all tries, or another answer than a file.
    """
    if target.is_file() and target.stat().st_size == size:
        found, sha256 = hash_file(target, size)
        if found == blob:
            return sha256
    part = target.with_name(target.name + ".part")
    try:
        for attempt in stamina.retry_context(
            on=retriable,
            attempts=attempts,
            timeout=None,
            wait_initial=wait,
            wait_max=60 * wait,
            wait_jitter=wait,
        ):
            with attempt:
                _fetch(client, url, part, size)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        kind = MissingFileError if code == 404 else StorageError
        raise kind(f"{url} answered {code} {error.response.reason_phrase}") from error
    except (httpx.HTTPError, _Interrupted) as error:
        raise StorageError(
            f"{url} could not be downloaded in {attempts} tries: {error or type(error).__name__}; "
            "run the same command again to go on from where it stopped"
        ) from error
    found_size = part.stat().st_size
    found, sha256 = hash_file(part, found_size)
    if found != blob:
        pointer = part.read_bytes()[: len(LFS_POINTER)] == LFS_POINTER
        part.unlink()
        why = "; it is a Git LFS pointer, not the file" if pointer else ""
        raise DataError(
            f"{url} has the wrong content: git blob id {found} ({found_size} bytes), "
            f"expected {blob} ({size} bytes)"
            f"{why}. It was deleted; nothing was written"
        )
    part.replace(target)
    return sha256


def _fetch(client: httpx.Client, url: str, part: Path, size: int) -> None:
    """One try: ask for the bytes that are missing and append them."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have == size and part.exists():
        return
    headers = (
        {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
        if have
        else {"Accept-Encoding": "identity"}
    )
    with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
        if response.status_code == 416:  # the part is of another file
            part.unlink(missing_ok=True)
            raise _Interrupted("the server refused to continue the partial file")
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
        with part.open("ab" if have else "wb") as handle, byte_progress(part.stem, size, have) as advance:
            for block in response.iter_bytes():  # as it arrives: a broken connection loses none of it
                handle.write(block)
                have += len(block)
                advance(have)
                if have > size:  # another file than the one that was listed, perhaps one without an end
                    break
    if have < size:
        raise _Interrupted(f"the connection ended after {have} of {size} bytes")
