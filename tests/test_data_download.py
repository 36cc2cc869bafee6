"""Downloads, against mirrors on the loopback interface only."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from elegan.data import idx
from elegan.data.download import fetch
from elegan.errors import UserError

Reply = Callable[[BaseHTTPRequestHandler, bytes], None]


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(s.to_bytes(4, "big") for s in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four small files that stand for MNIST, with their checksums in the table."""
    contents = {}
    for split, n in (("train", 6), ("test", 3)):
        images, labels = idx.FILES[split]
        contents[images] = idx_bytes(np.arange(n * 16, dtype=np.uint8).reshape(n, 4, 4))
        contents[labels] = idx_bytes(np.arange(n, dtype=np.uint8))
    monkeypatch.setitem(idx.SHA256, "mnist", {k: hashlib.sha256(v).hexdigest() for k, v in contents.items()})
    return {f"/{k}.gz": gzip.compress(v) for k, v in contents.items()}


def good(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def wrong_bytes(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    good(handler, gzip.compress(idx_bytes(np.zeros((2, 4, 4), np.uint8))))


def cut_off(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def missing(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_error(404)


def silent(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    time.sleep(1.0)


@contextmanager
def mirror(files: dict[str, bytes], reply: Reply) -> Iterator[tuple[str, list[str]]]:
    """A server on 127.0.0.1: its URL, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            reply(self, files[self.path])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_downloads_verifies_and_leaves_no_temporary_file(published, tmp_path):
    with mirror(published, good) as (url, asked):
        folder = fetch("mnist", mirrors=[url], folder=tmp_path / "new" / "mnist")
        assert fetch("mnist", mirrors=[url], folder=folder) == folder
    assert sorted(asked) == sorted(published)  # the second call found everything and asked for nothing
    assert sorted(p.name for p in folder.iterdir()) == sorted(p[1:] for p in published)
    images, labels, known = idx.read_pair(folder, "train", "mnist")
    assert images.shape == (6, 4, 4) and labels.tolist() == [0, 1, 2, 3, 4, 5] and known == "mnist"


@pytest.mark.parametrize("bad", [wrong_bytes, cut_off, missing, silent])
def test_a_bad_mirror_is_passed_over(published, tmp_path, bad):
    with mirror(published, bad) as (first, asked), mirror(published, good) as (second, rescued):
        folder = fetch("mnist", mirrors=[first, second], folder=tmp_path, timeout=0.2)
    assert asked and len(rescued) == 4
    assert idx.read_pair(folder, "test", "mnist")[0].shape == (3, 4, 4)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("bad", [wrong_bytes, cut_off])
def test_nothing_is_kept_of_bad_bytes(published, tmp_path, bad):
    with mirror(published, bad) as (url, _), pytest.raises(UserError) as caught:
        fetch("mnist", mirrors=[url], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert url in str(caught.value) and "\n" not in str(caught.value)


def test_offline_says_what_to_do_on_one_line_and_quickly(tmp_path):
    with mirror({}, good) as (url, _):
        pass  # the port is closed again: nobody answers there
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        fetch("fashion-mnist", mirrors=[url, url], folder=tmp_path)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert "\n" not in message and "ELEGAN_DATA" in message and "--data garments" in message
    assert all(f"{name}.gz" in message for name in idx.SHA256["fashion-mnist"])


def test_not_allowed_asks_nobody(published, tmp_path):
    with mirror(published, good) as (url, asked), pytest.raises(UserError, match="ELEGAN_DATA"):
        fetch("mnist", allowed=False, mirrors=[url], folder=tmp_path)
    assert asked == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="ELEGAN_CACHE"):
        fetch("mnist", mirrors=[], folder=tmp_path / "file" / "mnist")
