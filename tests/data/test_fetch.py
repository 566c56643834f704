"""Downloads against a server on this machine that can break off, refuse and lie."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from bearray.data import open_dataset
from bearray.data.download import download
from bearray.data.fetch import COMMIT, NAMES, SOURCE_FILE, fetch, select_files
from bearray.data.prompts import DOMAINS, template_for
from bearray.errors import ConfigError, DataError, MissingFileError, StorageError

QUICK = {"wait": 0.01, "attempts": 4}


def blob_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; `faults[path]` are done first, one a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.ranges = True
        self.log: list[tuple[str, str | None, int]] = []
        """(path, Range header, status)"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def list_tree(self, paths: list[str] | None = None) -> None:
        """Publish listing.json as GitHub answers for a tree."""
        tree = [{"path": "data", "type": "tree", "sha": "0" * 40}]
        for path, data in self.files.items():
            if paths is None or path in paths:
                tree.append({"path": path, "type": "blob", "size": len(data), "sha": blob_id(data)})  # type: ignore[dict-item]
        self.files["listing.json"] = json.dumps({"sha": "x", "tree": tree, "truncated": False}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        wanted = self.headers.get("Range")
        faults = self.server.faults.get(path)
        fault = faults.pop(0) if faults else ""
        data = self.server.files.get(path)
        if fault.isdigit() or data is None:
            self.answer(int(fault or 404), b"", wanted, path)
            return
        start = 0
        if wanted and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
        body = data[start:]
        self.answer(
            206 if start else 200, body[: len(body) // 2] if fault == "cut" else body, wanted, path, len(body)
        )
        if fault == "cut":
            self.close_connection = True

    def answer(
        self, status: int, body: bytes, wanted: str | None, path: str, length: int | None = None
    ) -> None:
        self.server.log.append((path, wanted, status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5) as made:
        yield made


CONTENT = bytes(range(256)) * 2_000


def get(client: httpx.Client, server: Server, target: Path, **changes: object) -> str:
    settings: dict = {"size": len(CONTENT), "blob": blob_id(CONTENT)} | QUICK | changes
    return download(client, f"{server.url}/big", target, **settings)


# --- one file
# -----------------------------------------------------------------------------------------------------


def test_download(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.files["big"] = CONTENT
    assert get(client, server, tmp_path / "big") == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "big").read_bytes() == CONTENT
    assert [f.name for f in tmp_path.iterdir()] == ["big"]


def test_a_broken_connection_is_resumed(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.files["big"] = CONTENT
    server.faults["big"] = ["cut", "cut"]
    get(client, server, tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) if wanted else 0 for _, wanted, _ in server.log]
    assert starts == sorted(starts) and len(starts) == 3 and starts[1] > 0
    assert [status for _, _, status in server.log] == [200, 206, 206]


def test_a_later_call_resumes(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.files["big"] = CONTENT
    server.faults["big"] = ["cut"] * 2
    with pytest.raises(StorageError, match=r"could not be downloaded in 2 tries.*run the same command again"):
        get(client, server, tmp_path / "big", attempts=2)
    part = tmp_path / "big.part"
    have = part.stat().st_size
    assert 0 < have < len(CONTENT) and not (tmp_path / "big").exists()
    get(client, server, tmp_path / "big")
    assert server.log[-1] == ("big", f"bytes={have}-", 206)
    assert (tmp_path / "big").read_bytes() == CONTENT and not part.exists()


def test_a_server_without_ranges_starts_over(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.files["big"], server.faults["big"], server.ranges = CONTENT, ["cut"], False
    get(client, server, tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == CONTENT


@pytest.mark.parametrize("status", ["500", "503", "429"])
def test_passing_faults_are_retried(
    client: httpx.Client, server: Server, tmp_path: Path, status: str
) -> None:
    server.files["big"], server.faults["big"] = CONTENT, [status, status]
    get(client, server, tmp_path / "big")
    assert len(server.log) == 3


@pytest.mark.parametrize(("status", "kind"), [("404", MissingFileError), ("403", StorageError)])
def test_lasting_faults_are_not(
    client: httpx.Client, server: Server, tmp_path: Path, status: str, kind: type[Exception]
) -> None:
    server.files["big"], server.faults["big"] = CONTENT, [status]
    with pytest.raises(kind, match=f"answered {status}"):
        get(client, server, tmp_path / "big")
    assert len(server.log) == 1


def test_no_server(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be downloaded in 2 tries"):
        download(client, "http://127.0.0.1:9/x", tmp_path / "x", size=1, blob="", attempts=2, wait=0.01)


@pytest.mark.parametrize("lie", [CONTENT[:-1] + b"!", CONTENT + b"more"])
def test_wrong_content_is_refused_and_deleted(
    client: httpx.Client, server: Server, tmp_path: Path, lie: bytes
) -> None:
    server.files["big"] = lie
    with pytest.raises(
        DataError, match=rf"wrong content: git blob id {blob_id(lie)} .* expected {blob_id(CONTENT)}"
    ):
        get(client, server, tmp_path / "big")
    assert not any(tmp_path.iterdir())


def test_git_lfs_pointers_are_told(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.files["big"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(DataError, match="Git LFS pointer"):
        get(client, server, tmp_path / "big", size=len(server.files["big"]))


def test_a_part_that_is_too_long_is_thrown_away(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    server.files["big"] = CONTENT
    (tmp_path / "big.part").write_bytes(CONTENT + b"x")
    get(client, server, tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == CONTENT


def test_what_is_there_is_not_downloaded_again(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(CONTENT)
    get(client, server, tmp_path / "big")
    assert not server.log


# --- a data set
# ---------------------------------------------------------------------------------------------------


def publish(server: Server, folder: str = "Toy") -> None:
    titles = {str(i): f"Title {i}" for i in range(1, 6)}
    rows = [f'{n},"[{1 + n % 5}, {1 + (n + 1) % 5}, {1 + (n + 2) % 5}]",{100 + n}' for n in range(30)]
    train = "\n".join(["user_id,item_ids,timestamp", *rows]) + "\n"
    server.files |= {
        f"data/{folder}/id2name4Rec.json": json.dumps(titles).encode(),
        f"data/{folder}/train.csv": train.encode(),
        f"data/{folder}/train_10000.csv": train.encode(),
        f"data/{folder}/test_5000.csv": b'user_id,item_ids,timestamp\n1,"[1, 2]",200\n2,"[3, 4]",201\n',
        f"data/{folder}/notes.txt": b"not asked for",
        "train_bear.py": b"nor this",
        "data/Other/train.csv": b"nor this",
    }
    server.list_tree()


def test_fetch(server: Server, tmp_path: Path) -> None:
    publish(server)
    result = fetch("toy", tmp_path / "toy", base_url=server.url, **QUICK)  # type: ignore[arg-type]
    data = open_dataset(result.path)
    assert (len(data.train), len(data.valid), len(data.test), len(data.items)) == (27, 3, 2, 5)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["toy"]
    source = json.loads((result.path / SOURCE_FILE).read_text())
    assert source["commit"] == COMMIT
    recorded = {entry["path"]: (entry["git_blob"], entry["sha256"]) for entry in source["files"]}
    assert set(recorded) == {
        f"data/Toy/{n}" for n in ("id2name4Rec.json", "train.csv", "train_10000.csv", "test_5000.csv")
    }
    for path, hashes in recorded.items():
        content = server.files[path]
        assert hashes == (blob_id(content), hashlib.sha256(content).hexdigest())


def test_fetch_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    publish(server)
    server.faults["data/Toy/train.csv"] = ["cut"] * 2
    with pytest.raises(StorageError, match="run the same command again"):
        fetch("toy", tmp_path / "toy", base_url=server.url, attempts=2, wait=0.01)
    assert not (tmp_path / "toy").exists()
    server.log.clear()
    fetch("toy", tmp_path / "toy", base_url=server.url, **QUICK)  # type: ignore[arg-type]
    again = {path: (wanted, status) for path, wanted, status in server.log}
    assert "data/Toy/id2name4Rec.json" not in again
    assert again["data/Toy/train.csv"][1] == 206
    assert sorted(f.name for f in tmp_path.iterdir()) == ["toy"]


def test_fetch_refuses_wrong_bytes(server: Server, tmp_path: Path) -> None:
    publish(server)
    server.files["data/Toy/train.csv"] = server.files["data/Toy/train.csv"].replace(b"100", b"999")
    with pytest.raises(DataError, match=r"data/Toy/train\.csv has the wrong content"):
        fetch("toy", tmp_path / "toy", base_url=server.url, **QUICK)  # type: ignore[arg-type]
    assert not (tmp_path / "toy").exists()


def test_a_second_fetch_must_find_the_same_files(server: Server, tmp_path: Path) -> None:
    publish(server)
    out = fetch("toy", tmp_path / "toy", base_url=server.url, **QUICK).path  # type: ignore[arg-type]
    fetch("toy", out, base_url=server.url, force=True, **QUICK)  # type: ignore[arg-type]
    server.files["data/Toy/train.csv"] += b'40,"[1, 2]",150\n'
    server.list_tree()
    before = (out / "sequences_train.parquet").read_bytes()
    with pytest.raises(DataError, match="the source has changed"):
        fetch("toy", out, base_url=server.url, force=True, **QUICK)  # type: ignore[arg-type]
    assert (out / "sequences_train.parquet").read_bytes() == before


def test_fetch_does_not_overwrite(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "mine").touch()
    with pytest.raises(DataError, match="--force"):
        fetch("toy", tmp_path / "toy", base_url=server.url)
    assert not server.log


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'movies'; it must be one of office, book, toy, clothing"):
        fetch("movies", tmp_path / "x")


@pytest.mark.parametrize(
    ("listing", "kind", "message"),
    [
        (b"<html>", DataError, "is not JSON"),
        (b"[]", DataError, "no list 'tree'"),
        (b'{"tree": [], "truncated": true}', DataError, "cut short"),
        (b'{"tree": []}', MissingFileError, "no folder data/... for 'toy'"),
        (None, StorageError, "answered 404"),
    ],
)
def test_bad_listings(
    server: Server, tmp_path: Path, listing: bytes | None, kind: type[Exception], message: str
) -> None:
    if listing is not None:
        server.files["listing.json"] = listing
    with pytest.raises(kind, match=message):
        fetch("toy", tmp_path / "toy", base_url=server.url, **QUICK)  # type: ignore[arg-type]
    assert not (tmp_path / "toy").exists()


def tree(*paths: str) -> dict:
    return {"tree": [{"path": path, "type": "blob", "size": 1, "sha": "0"} for path in paths]}


def whole(folder: str) -> list[str]:
    return [f"data/{folder}/{name}" for name in ("id2name4Rec.json", "train_10000.csv", "test_5000.csv")]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Toy", "toy"), ("Amazon_Books", "book"), ("Office", "office"), ("amazon-clothing", "clothing")],
)
def test_folders_are_found_by_name(folder: str, name: str) -> None:
    files = select_files(tree(*whole(folder), *whole("Other"), f"data/{folder}/deep/train.csv"), name)
    assert sorted(file.path for file in files) == sorted(whole(folder))


def test_ambiguous_and_incomplete_folders() -> None:
    with pytest.raises(DataError, match="several folders fit 'toy': Toy, Toy-S"):
        select_files(tree(*whole("Toy"), *whole("Toy-S")), "toy")
    with pytest.raises(MissingFileError, match=r"lacks test, id2name4Rec\.json"):
        select_files(tree("data/Toy/train.csv"), "toy")


def test_every_name_has_a_prompt() -> None:
    assert all(template_for(name) == DOMAINS[name] for name in NAMES)
