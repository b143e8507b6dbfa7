"""Downloads that go on where they broke off; the only file that knows the network.

`requests` gives up only when no byte comes, so a server that drips holds it for ever, and it has no
notion of going on: both are added here. RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges).
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from adtr_jax.errors import InputError

if TYPE_CHECKING:
    import requests

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Patience:
    """When a transfer is given up.

    Attributes:
        timeout: Seconds without an answer, or without the next byte of it.
        period, slowest: In each so many seconds so many bytes a second have to come.
        attempts: How many may fail in a row, each with less than a period's bytes.
        pause: Seconds between them.
    """

    timeout: float = 30.0
    period: float = 60.0
    slowest: int = 10_000
    attempts: int = 3
    pause: float = 1.0

    @property
    def least(self) -> float:
        """The bytes of a period."""
        return self.period * self.slowest


PATIENCE = Patience()


class _TooSlowError(Exception):
    """A transfer brings less than it has to."""


class _TooLargeError(Exception):
    """A transfer brings more than it may."""


@contextmanager
def downloaded(
    url: str, part: Path, *, limit: int, remedy: str, patience: Patience = PATIENCE
) -> Iterator[Path]:
    """Downloads a file, with a progress bar on a terminal, and deletes it when the context is left.

    What has come stays in `part` when the download fails or the process ends, and the next call
    goes on from there, unless the server has another file by then. Of several processes one
    downloads, and the others wait for it.

    Args:
        url: where the file is.
        part: the file to write, in a folder that exists; yielded when it is complete. The caller
            may move it away.
        limit: the largest size to accept, in bytes.
        remedy: what to do about a download that fails; ends the errors.
        patience: when it is given up.

    Raises:
        InputError: no connection, no answer, an HTTP error, more than `limit` bytes; or a transfer
            that breaks off, stalls or drips again and again.
        OSError: `part` cannot be written.
    """
    validator = part.with_name(f"{part.name}.etag")
    with _locked(part) as file:
        try:
            _Download(url, file, validator, limit, patience).complete(remedy)
            yield part
        except BaseException:
            if not file.tell():  # nothing to go on with
                part.unlink(missing_ok=True)
                validator.unlink(missing_ok=True)
            raise
        part.unlink(missing_ok=True)
        validator.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, at its end, which no other process writes to until the context is left."""
    while True:
        with path.open("a+b") as file:
            if fcntl is not None:
                with suppress(OSError):  # network drives without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held the lock may have finished and deleted the file.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.seek(0, os.SEEK_END)
                yield file
                return


@dataclass(frozen=True)
class _Download:
    """One file, of which `file` has the beginning, and `validator` the server's name for it."""

    url: str
    file: BinaryIO
    validator: Path
    limit: int
    patience: Patience

    def complete(self, remedy: str) -> None:
        """Downloads what is missing, in as many attempts as it takes; raises InputError."""
        import requests
        import urllib3

        failures = 0
        while True:
            begin = self.file.tell()
            try:
                return self._attempt()
            except _TooLargeError:
                self._empty()
                raise InputError(
                    f"{self.url}: more than {self.limit:,} bytes came; {remedy}"
                ) from None
            except (
                requests.RequestException,
                urllib3.exceptions.HTTPError,
                _TooSlowError,
            ) as error:
                some = self.file.tell() - begin >= self.patience.least
                failures = 0 if some else failures + 1
                at_once = isinstance(error, requests.HTTPError) or not self.file.tell()
                if at_once or failures >= self.patience.attempts:
                    kept = "the same command goes on with it, or " if self.file.tell() else ""
                    raise InputError(
                        f"{self.url}: download failed ({self._reason(error)}); {kept}{remedy}"
                    ) from None
            time.sleep(self.patience.pause)

    def _attempt(self) -> None:
        """Goes on at the file's end if the server still has the same file, else begins anew."""
        import requests

        headers = {"Accept-Encoding": "identity"}  # a range counts the bytes as they are sent
        version = self.validator.read_text() if self.validator.is_file() else ""
        if version and self.file.tell():
            headers |= {"Range": f"bytes={self.file.tell()}-", "If-Range": version}
        with requests.get(
            self.url, headers=headers, stream=True, timeout=self.patience.timeout
        ) as response:
            begin, total = _sent(response)
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                if total == self.file.tell():
                    return  # nothing was missing
                begin = -1
            if version and begin not in (0, self.file.tell()):
                self._empty()
                return self._attempt()
            response.raise_for_status()
            if begin == 0:
                self._empty()
                self.validator.write_text(_validator(response))
            for piece in self._pieces(response, total):
                self.file.write(piece)
                self.file.flush()  # what has come is on the disc, however the process ends
                if self.file.tell() > self.limit:
                    raise _TooLargeError

    def _empty(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.validator.unlink(missing_ok=True)

    def _pieces(self, response: "requests.Response", total: int | None) -> Iterator[bytes]:
        """What comes, as it comes; raises _TooSlowError."""
        from tqdm.auto import tqdm

        with tqdm(
            desc=self.url.rpartition("/")[2],
            initial=self.file.tell(),
            total=total,
            unit="B",
            unit_scale=True,
            disable=None,  # draws the bar on a terminal only
        ) as bar:
            since, count = time.monotonic(), 0
            # Not `iter_content`, which waits until a piece is full.
            while piece := response.raw.read1(_CHUNK):
                yield piece
                bar.update(len(piece))
                count += len(piece)
                if time.monotonic() - since > self.patience.period:
                    if count < self.patience.least:
                        raise _TooSlowError
                    since, count = time.monotonic(), 0

    def _reason(self, error: Exception) -> str:
        """A few words for what `requests` says in a paragraph."""
        import requests
        import urllib3

        if isinstance(error, requests.HTTPError) and error.response is not None:
            return f"HTTP status {error.response.status_code} {error.response.reason}"
        least, period = self.patience.slowest, self.patience.period
        reasons = {
            _TooSlowError: f"less than {least:,} bytes a second for {period:g} s",
            urllib3.exceptions.ReadTimeoutError: (
                f"it stalled: no byte for {self.patience.timeout:g} s"
            ),
            urllib3.exceptions.HTTPError: "the transfer broke off",
            requests.Timeout: f"no answer within {self.patience.timeout:g} s",
            requests.exceptions.SSLError: "the server's certificate cannot be verified",
            requests.ConnectionError: "no connection",
        }
        known = (text for kind, text in reasons.items() if isinstance(error, kind))
        return next(known, type(error).__name__)


def _sent(response: "requests.Response") -> tuple[int, int | None]:
    """Where in the file the response begins, and the file's size, if it is known."""
    stated = response.headers.get("Content-Range", "")
    if found := re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+)", stated):
        return int(found[1] or 0), int(found[2])
    size = response.headers.get("Content-Length", "")
    return 0, int(size) if size.isdecimal() else None


def _validator(response: "requests.Response") -> str:
    """What tells this version of the file from others; "" if the server does not say."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
