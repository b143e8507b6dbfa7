"""From words to decoded images: what is taken, in which order, and how many at a time."""

import gc
import io
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import Sample, inputs, load_images
from adtr_jax.data.inputs import decoded, expand, images_below
from adtr_jax.errors import InputError

NOTHING = io.StringIO()


def draw(path: Path, size: tuple[int, int] = (4, 4), value: int = 0, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def names(paths: Iterator[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


@contextmanager
def unlistable(folder: Path) -> Iterator[None]:
    """The folder's content is denied to us, even where we are root."""
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_order_is_kept_and_a_file_named_twice_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "x/c.png", "x/a.png", "strange.dat"):
        draw(tmp_path / "any.png").rename(tmp_path / name) if "/" not in name else draw(Path(name))
    stdin = io.StringIO("x/a.png\nmissing.png\r\n\nb.png\n")
    words = ["strange.dat", "b.png", "./b.png", "x", str(tmp_path / "x" / "a.png"), "-", "x/"]
    assert [str(path) for path in expand(words, stdin)] == [
        "strange.dat",
        "b.png",
        "x/a.png",
        "x/c.png",
        "missing.png",
    ]


def test_a_folder_stands_for_all_images_below_it(tmp_path: Path) -> None:
    taken = ["B.PNG", "a.png", "c/a.jpeg", "c/d/e/f.tif", "c/z.webp", "d.bmp", "lost.png/x.png"]
    left_out = [".hidden.png", ".git/x.png", "__MACOSX/x.png", "@eaDir/x.png", "c/._z.png"]
    for name in (*taken, *left_out):
        draw(tmp_path / name)
    for name in ("notes.txt", "Thumbs.db", "c/desktop.ini", "model.adtr"):
        (tmp_path / name).write_text("no image")
    assert names(expand([str(tmp_path)], NOTHING), tmp_path) == taken


def test_overlays_of_earlier_predictions_are_no_inputs(tmp_path: Path) -> None:
    """Results among the images must not be predicted, and their overlays not again, and so on."""
    for name in ("a.png", "results/overlays/a-1.png", "overlays/b.png"):
        draw(tmp_path / name)
    (tmp_path / "results" / "predictions.jsonl").touch()
    assert names(images_below(tmp_path), tmp_path) == ["a.png", "overlays/b.png"]
    overlays = tmp_path / "results" / "overlays"
    assert names(expand([str(overlays)], NOTHING), overlays) == ["a-1.png"]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    found = names(itertools.islice(images_below(tmp_path / "in"), 9), tmp_path / "in")
    assert found == ["a.png", "link/b.png"]


def test_a_folder_that_cannot_be_listed_stands_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("in/a.png"))
    draw(Path("in/closed/b.png"))
    tmp_path.chmod(0o755)
    with unlistable(Path("in/closed")):
        items = list(decoded(images_below(Path("in")), 4, 1.0, workers=1))
    assert [str(item.path) for item in items] == ["in/a.png", "in/closed"]
    assert [item.error for item in items] == [None, "cannot read in/closed: Permission denied"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("absent.png", r"^absent\.png is neither a file nor a folder: check it$"),
        ("", r"^\(an empty name\) is neither a file nor a folder: check it$"),
        ("pipe", r"^pipe is neither a file nor a folder: check it$"),
        ("a\0b", r"neither a file nor a folder"),
        ("empty", r"^empty holds no images \(png, jpg, .*\): give another folder, or files$"),
    ],
)
def test_a_bad_word_is_an_error_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("a.png"))
    os.mkfifo("pipe")
    Path("empty/below").mkdir(parents=True)
    Path("empty/notes.txt").touch()
    stdin = io.StringIO("a.png\n")
    with pytest.raises(InputError, match=message):
        expand(["a.png", "-", word], stdin)
    assert stdin.read() == "a.png\n"


def test_standard_input_is_read_line_by_line(tmp_path: Path) -> None:
    """A real pipe that stays open: a path is given when its line is complete."""
    draw(tmp_path / "in" / "a.png")
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as out, os.fdopen(reading) as stdin:
        paths = expand(["-"], stdin)
        out.write("first.png\nsecond.png\n")
        assert str(next(paths)) == "first.png"
        assert str(next(paths)) == "second.png"
        out.write(f"{tmp_path / 'in'}\n")
        assert next(paths) == tmp_path / "in" / "a.png"
        out.close()
        assert list(paths) == []


def test_names_on_standard_input_need_not_be_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    draw(tmp_path / "a.png").rename(path)
    stdin = io.TextIOWrapper(io.BytesIO(os.fsencode(path) + b"\n"), encoding="utf-8")
    (item,) = decoded(expand(["-", "-"], stdin), 4, 1.0)
    assert (item.path, item.error) == (path, None)


def test_images_are_as_load_images_makes_them(tmp_path: Path) -> None:
    """In order, though every third takes much longer, and each upright at its own size."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = []
    for i in range(30):
        width, height = (900, 700) if i % 3 == 0 else (40 + i, 30)
        values = rng.integers(0, 256, (height, width, 3)[: 2 + i % 2], np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(values).save(paths[-1], exif=exif if i % 5 == 0 else b"")
    items = list(decoded(paths, 32, 0.875, workers=4))
    assert [item.path for item in items] == paths
    samples = [Sample(path.name, path, "good") for path in paths]
    loaded = load_images(samples, 32, 0.875)
    for i, item in enumerate(items):
        width, height = (900, 700) if i % 3 == 0 else (40 + i, 30)
        assert item.error is None
        assert item.image is not None
        assert item.image.mode == ("RGB" if i % 2 else "L")
        assert item.image.size == ((height, width) if i % 5 == 0 else (width, height))
        np.testing.assert_array_equal(item.pixels, loaded[i])


def test_the_bytes_of_a_file_are_the_file(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", (64, 48))
    from_file, from_bytes, bad = decoded([path, path.read_bytes(), b"no image"], 16, 1.0)
    assert from_bytes.path is None and from_bytes.image is not None
    assert from_bytes.image.size == (64, 48)
    np.testing.assert_array_equal(from_bytes.pixels, from_file.pixels)
    assert bad.error is not None and bad.error.startswith("the image of 8 bytes is not a png, jpg")


def test_what_cannot_be_read_is_an_item_with_its_error(tmp_path: Path) -> None:
    good = draw(tmp_path / "good.png", (64, 64))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    bad = ["text", "cut", "empty", "folder", "pipe", "absent", "a\0b", "two\nlines"]
    paths = [tmp_path / f"{name}.png" for name in bad]
    items = list(decoded([*paths, good], 8, 1.0, workers=2))
    assert [item.path for item in items] == [*paths, good]
    assert [item.error is None for item in items] == [False] * 8 + [True]
    for item, message in zip(
        items,
        [
            "text.png is not a png",
            "cut.png is corrupt",
            "empty.png is empty",
            "folder.png: Is a directory",
            "pipe.png is neither a file nor a folder: leave it out",
            "absent.png: No such file",
            "null byte",
            "two lines.png: No such file",
        ],
        strict=False,
    ):
        assert item.image is item.pixels is None
        assert message in str(item.error)
        assert "\n" not in str(item.error)


def live_images(size: tuple[int, int]) -> int:
    # By type: to ask an object for its class may be an adventure, PyTorch warns then.
    images = [found for found in gc.get_objects() if issubclass(type(found), Image.Image)]
    return sum(image.size == size and image._im is not None for image in images)


def test_few_images_are_held_however_many_there_are(tmp_path: Path) -> None:
    """300 files: what lives is counted while they are taken, and after pauses of the taker.

    Decoding one image makes a second for a moment, so each thread may hold two.
    """
    workers, size = 3, (211, 97)
    paths = [draw(tmp_path / f"{i:03}.png", size, i % 256, "RGB") for i in range(300)]
    gc.collect()
    asked = 0

    def counted() -> Iterator[Path]:
        nonlocal asked
        for path in paths:
            asked += 1
            yield path

    most = 0
    for taken, item in enumerate(decoded(counted(), 16, 1.0, workers), start=1):
        assert asked - taken < 2 * workers
        assert item.pixels is not None
        if taken % 30 == 0:
            time.sleep(0.1)  # all that may be decoded ahead is decoded
            assert live_images(size) <= 2 * workers
        elif taken % 30 == 15:
            most = max(most, live_images(size))
    assert asked == 300
    assert workers < most <= 3 * workers


def test_large_images_wait_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of 40,000 bytes fit; the one that is waited for comes though it is larger than all."""
    monkeypatch.setattr(inputs, "AHEAD", 130_000)
    size = (101, 99)
    paths = [draw(tmp_path / f"{i:02}.png", size, i, "RGB") for i in range(12)]
    paths.insert(6, draw(tmp_path / "large.png", (300, 300), 5, "RGB"))
    gc.collect()
    most = 0
    items = decoded(paths, 16, 1.0, workers=6)
    for path, item in zip(paths, items, strict=True):
        assert (item.path, item.error) == (path, None)
        if path in (paths[2], paths[10]):
            time.sleep(0.1)  # all that may be decoded ahead is decoded
            most = max(most, live_images(size))
    assert 3 <= most <= 3 + 2  # and the one just taken, and the one that is drawn next


def test_closing_stops_the_threads_at_once(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{i}.png", (600, 600)) for i in range(60)]
    before = threading.active_count()
    items = decoded(iter(paths), 16, 1.0, workers=2)
    next(items)
    assert threading.active_count() == before + 2
    began = time.perf_counter()
    items.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - began < 1.0
    assert threading.active_count() == before


def test_an_error_of_the_paths_reaches_the_taker_and_stops_the_threads(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    before = threading.active_count()

    def failing() -> Iterator[Path]:
        yield path
        raise InputError("the list ends here")

    with pytest.raises(InputError, match="the list ends here"):
        list(decoded(failing(), 8, 1.0, workers=1))
    assert threading.active_count() == before
