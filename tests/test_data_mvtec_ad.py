"""Downloading and preparing MVTec-AD, on a tiny archive served from this machine."""

import hashlib
import io
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import load_images, load_masks, mvtec_ad, mvtec_ad_archive
from adtr_jax.data.mvtec_ad_archive import ARCHIVE, CATEGORIES, Archive
from adtr_jax.errors import InputError

pytest.importorskip("tensorflow_datasets")

NAME = ARCHIVE.file_name


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side), value).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = {
    "readme.txt": b"read me",
    "bottle/train/good/000.png": png(99),
    "bottle/test/good/000.png": png(99),
    "bottle/test/broken/000.png": png(99),
    "bottle/ground_truth/broken/000_mask.png": png(255),
    "grid/license.txt": b"a licence",
    **{f"grid/train/good/{index:03d}.png": png(10 * index) for index in range(20)},
    "grid/test/good/000.png": png(1),
    "grid/test/bent/000.png": png(2),
    "grid/test/bent/001.png": png(3),
    "grid/ground_truth/bent/000_mask.png": png(255),
    "grid/ground_truth/bent/001_mask.png": png(1),
}


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A web server on this machine that serves the archive and counts the requests."""
    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / NAME, "w:xz") as tar:
        for name, content in CONTENT.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.requests = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Archive:
    """The tiny archive in place of the real one."""
    data = (tmp_path / "served" / NAME).read_bytes()
    url = f"http://127.0.0.1:{server.server_port}/{NAME}"
    tiny = Archive(url, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(mvtec_ad_archive, "ARCHIVE", tiny)
    return tiny


def read_error(data_dir: Path) -> str:
    with pytest.raises(InputError) as caught:
        mvtec_ad.read_category("grid", data_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert "by hand, then unpack it and pass --data=DIR" in message
    assert str(data_dir / "downloads" / "manual") in message
    return message


def test_downloaded_once_and_read_as_it_is(
    archive: Archive, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    grid = mvtec_ad.read_category("grid", tmp_path / "tfds")
    bottle = mvtec_ad.read_category("bottle", tmp_path / "tfds")
    assert server.requests == [f"/{NAME}"]
    assert (len(bottle.train), len(bottle.test), bottle.has_masks) == (1, 2, True)
    assert [sample.name for sample in grid.train] == [f"train/good/{i:03d}.png" for i in range(20)]
    assert [(s.name, s.defect, s.label, s.mask is None) for s in grid.test] == [
        ("test/bent/000.png", "bent", 1, False),
        ("test/bent/001.png", "bent", 1, False),
        ("test/good/000.png", "good", 0, True),
    ]
    assert all(sample.image.read_bytes() == CONTENT[f"grid/{sample.name}"] for sample in grid.train)
    assert load_images(grid.train, 4)[:, 1, 1, 1].tolist() == [10 * i for i in range(20)]
    assert load_images(grid.test, 4)[:, 1, 1, 1].tolist() == [2, 3, 1]
    assert load_masks(grid.test, 4).marked.sum((1, 2)).tolist() == [16, 16, 0]
    assert "tensorflow" not in sys.modules


def test_a_prepared_category_needs_no_network(
    archive: Archive, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    first = mvtec_ad.read_category("grid", tmp_path / "tfds")
    server.requests.clear()
    again = mvtec_ad.read_category("grid", tmp_path / "tfds")
    assert server.requests == []
    assert [sample.name for sample in again.test] == [sample.name for sample in first.test]
    np.testing.assert_array_equal(load_images(again.test, 4), load_images(first.test, 4))


def test_an_archive_put_there_by_hand_is_used(
    archive: Archive, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    (tmp_path / "served" / NAME).rename(manual / NAME)
    assert len(mvtec_ad.read_category("grid", tmp_path / "tfds").train) == 20
    assert server.requests == []


def test_wrong_checksum(archive: Archive, tmp_path: Path) -> None:
    served = tmp_path / "served" / NAME
    served.write_bytes(served.read_bytes()[:-1] + b"x")
    message = read_error(tmp_path / "tfds")
    assert message.startswith(
        f"{NAME} from {archive.url} is not the expected file (SHA-256 {archive.sha256[:8]}...): "
        f"delete it from {tmp_path / 'tfds' / 'downloads'} and try again"
    )
    assert not list((tmp_path / "tfds").glob("mvtec_ad/grid/*"))


def test_page_gone(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "served" / NAME).unlink()
    message = read_error(tmp_path / "tfds")
    assert message.startswith(f"{archive.url}: download failed (HTTP status 404 File not found); ")


def test_no_network(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
        monkeypatch.setattr(mvtec_ad_archive, "ARCHIVE", Archive(url, archive.size, archive.sha256))
        message = read_error(tmp_path / "tfds")
    assert message.startswith(f"{url}: download failed (no connection); ")
    assert "Retrying" not in caplog.text


def test_a_folder_that_cannot_be_written(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "tfds").write_text("a file, not a folder")
    message = read_error(tmp_path / "tfds")
    assert message.startswith(f"cannot prepare MVTec-AD in {tmp_path / 'tfds'} (")
    assert "make room for 11 GB, or set TFDS_DATA_DIR" in message


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "adtr_jax.data.mvtec_ad_builder", raising=False)
    monkeypatch.delattr("adtr_jax.data.mvtec_ad_builder", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        InputError, match=r"needs tensorflow_datasets: pip install tensorflow-datasets .*--data=DIR"
    ):
        mvtec_ad.read_category("grid", tmp_path)


def test_unknown_category(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="no category of MVTec-AD is called metalnut: did you mean metal_nut"
    ):
        mvtec_ad.read_category("metalnut", tmp_path)
    assert len(CATEGORIES) == 15
