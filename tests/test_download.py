"""Downloads from a server that stalls, drips, breaks off, or has another file by now."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from adtr_jax.errors import InputError
from adtr_jax.files.download import Patience, downloaded

CONTENT = np.random.default_rng(0).bytes(100_000)
IMPATIENT = Patience(timeout=0.3, period=0.3, slowest=10_000, pause=0.01)


class Web:
    """A server of one file. `send` is how the next answers are sent, `ranges` what was asked for.

    The last of `send` stays.
    """

    def __init__(self) -> None:
        self.content, self.etag, self.knows_ranges = CONTENT, '"1"', True
        self.send: list[Callable[[BaseHTTPRequestHandler, bytes], None]] = [write]
        self.ranges: list[str | None] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file.bin"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers["Range"])
        begin, size = 0, len(self.content)
        if self.knows_ranges and request.headers["If-Range"] == self.etag:
            begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if begin < size:
            request.send_response(206 if begin else 200)
            request.send_header("Content-Length", str(size - begin))
            content_range = f"bytes {begin}-{size - 1}/{size}"
        else:
            request.send_response(416)
            content_range = f"bytes */{size}"
        if begin:
            request.send_header("Content-Range", content_range)
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        send = self.send.pop(0) if len(self.send) > 1 else self.send[0]
        send(request, self.content[begin:])


def write(request: BaseHTTPRequestHandler, content: bytes) -> None:
    request.wfile.write(content)


def breaking(after: int) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    return lambda request, content: write(request, content[:after])


def stalling(after: int) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def send(request: BaseHTTPRequestHandler, content: bytes) -> None:
        write(request, content[:after])
        time.sleep(1)

    return send


def dripping(request: BaseHTTPRequestHandler, content: bytes) -> None:
    for byte in content[:40]:
        write(request, bytes([byte]))
        time.sleep(0.02)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("NO_PROXY", "*")
    web = Web()
    threading.Thread(target=web.server.serve_forever, args=(0.01,), daemon=True).start()
    yield web
    web.server.shutdown()
    web.server.server_close()


def fetch(web: Web, folder: Path, limit: int = 10**6) -> bytes:
    part = folder / ".file.bin.part"
    with downloaded(web.url, part, limit=limit, remedy="ask for it", patience=IMPATIENT) as path:
        return path.read_bytes()


def error(web: Web, folder: Path, limit: int = 10**6) -> str:
    with pytest.raises(InputError) as caught:
        fetch(web, folder, limit)
    return str(caught.value).removeprefix(f"{web.url}: ")


def test_a_download_leaves_nothing_behind(web, tmp_path):
    assert fetch(web, tmp_path) == CONTENT
    assert list(tmp_path.iterdir()) == []
    assert web.ranges == [None]


@pytest.mark.parametrize("wrong", [breaking(60_000), stalling(60_000)], ids=["breaks", "stalls"])
def test_a_transfer_that_ends_early_goes_on(web, tmp_path, wrong):
    web.send = [wrong, write]
    assert fetch(web, tmp_path) == CONTENT
    assert web.ranges == [None, "bytes=60000-"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (breaking(500), "the transfer broke off"),
        (stalling(500), "it stalled: no byte for 0.3 s"),
        (dripping, "less than 10,000 bytes a second for 0.3 s"),
    ],
    ids=["breaks", "stalls", "drips"],
)
def test_the_next_run_goes_on_with_what_has_come(web, tmp_path, wrong, reason):
    web.send = [wrong]
    begin = time.monotonic()
    assert error(web, tmp_path) == (
        f"download failed ({reason}); the same command goes on with it, or ask for it"
    )
    assert time.monotonic() - begin < 5
    had = (tmp_path / ".file.bin.part").stat().st_size
    assert had > 0
    assert (len(web.ranges), web.ranges[0]) == (3, None)
    web.send = [write]
    assert fetch(web, tmp_path) == CONTENT
    assert web.ranges[3] == f"bytes={had}-"
    assert list(tmp_path.iterdir()) == []


def test_attempts_that_bring_much_are_not_counted(web, tmp_path):
    web.send = [breaking(10_000)]
    assert fetch(web, tmp_path) == CONTENT
    assert web.ranges == [None, *(f"bytes={begin}0000-" for begin in range(1, 10))]


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', ""], ids=["strong", "weak", "none"])
def test_a_server_without_ranges_begins_anew(web, tmp_path, etag):
    web.send, web.knows_ranges, web.etag = [breaking(60_000), write], False, etag
    assert fetch(web, tmp_path) == CONTENT
    # Without a name for the file's version, nothing could be pieced together.
    assert web.ranges == [None, "bytes=60000-" if etag == '"1"' else None]


def test_another_file_is_not_spliced(web, tmp_path):
    web.send = [breaking(500)]
    error(web, tmp_path)
    web.send, web.content, web.etag = [write], CONTENT[::-1], '"2"'
    assert fetch(web, tmp_path) == CONTENT[::-1]
    assert re.fullmatch(r"bytes=\d+-", web.ranges[-1])  # asked for, and refused by the server


@pytest.mark.parametrize("had", [len(CONTENT), len(CONTENT) + 1], ids=["whole", "too much"])
def test_a_part_that_needs_nothing_more(web, tmp_path, had):
    """The process was killed just before the end; or the file is not a part of this one."""
    (tmp_path / ".file.bin.part").write_bytes((CONTENT + b"x")[:had])
    (tmp_path / ".file.bin.part.etag").write_text('"1"')
    assert fetch(web, tmp_path) == CONTENT
    assert web.ranges == [f"bytes={had}-", None][: 1 + (had > len(CONTENT))]


def test_no_more_than_the_limit_is_kept(web, tmp_path):
    message = error(web, tmp_path, limit=99_999)
    assert message == "more than 99,999 bytes came; ask for it"
    assert list(tmp_path.iterdir()) == []


def test_one_of_two_downloads_and_the_other_waits(web, tmp_path):
    web.send = [stalling(60_000), write]
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(web, tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT, CONTENT]
    assert web.ranges == [None, "bytes=60000-", None]
    assert list(tmp_path.iterdir()) == []
