"""Images that arrive: a real writer writes, renames and deletes while the folder is watched."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data.decode import decode_image
from adtr_jax.data.watch import watch
from adtr_jax.errors import InputError

POLL = 0.1


def png(seed: int = 0, side: int = 120) -> bytes:
    data = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(values).save(data, "PNG")
    return data.getvalue()


@contextmanager
def at_the_same_time(write: Callable[[], None]) -> Iterator[None]:
    """Another thread writes; what goes wrong there is raised here."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            write()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    assert errors == []


def test_an_image_that_is_there_comes_when_it_has_not_changed_for_a_poll(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(png())
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".b.png").write_bytes(png())
    began = time.perf_counter()
    assert next(watch(tmp_path, (), POLL)) == tmp_path / "sub" / "a.png"
    assert POLL <= time.perf_counter() - began < 10 * POLL


def test_a_file_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    """In pieces, with pauses longer than a poll, after which it is complete up to there."""
    slow, data = tmp_path / "a_slow.png", png()
    written = threading.Event()

    def write() -> None:
        pieces = np.array_split(np.frombuffer(data, np.uint8), 6)
        with slow.open("wb") as file:
            for piece in pieces[:-1]:
                file.write(piece.tobytes())
                file.flush()
                time.sleep(2.5 * POLL)
            written.set()
            file.write(pieces[-1].tobytes())

    arriving = watch(tmp_path, (), POLL)
    with at_the_same_time(write):
        while not slow.exists():
            time.sleep(0.01)
        (tmp_path / "b_quick.png").write_bytes(png(1))
        assert next(arriving) == tmp_path / "b_quick.png"
        assert not written.is_set()  # the slow one did not hold it up
        assert next(arriving) == slow
        assert written.is_set()
    assert decode_image(slow).size == (120, 120)


def test_a_file_that_was_renamed_comes_by_its_last_name_and_a_deleted_one_never(
    tmp_path: Path,
) -> None:
    """As programs do that copy: a part under another name first; and a part that is given up."""
    data = png()
    half = threading.Event()

    def write() -> None:
        part, given_up = tmp_path / "a.png", tmp_path / "0.png"
        part.write_bytes(data[: len(data) // 2])
        given_up.write_bytes(data[: len(data) // 2])
        half.set()
        time.sleep(3 * POLL)
        given_up.unlink()
        part.rename(tmp_path / "sub.part")
        time.sleep(2 * POLL)
        (tmp_path / "sub.part").write_bytes(data)
        (tmp_path / "sub.part").rename(tmp_path / "b.png")

    with at_the_same_time(write):
        half.wait()
        arriving = watch(tmp_path, (), POLL)
        assert next(arriving) == tmp_path / "b.png"
        (tmp_path / "c.png").write_bytes(data)
        assert next(arriving) == tmp_path / "c.png"


def test_a_damaged_image_comes_after_ten_polls(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(png()[:-60])
    began = time.perf_counter()
    assert next(watch(tmp_path, (), POLL)) == tmp_path / "cut.png"
    assert 10 * POLL <= time.perf_counter() - began < 40 * POLL


def test_each_path_comes_once_and_what_is_done_never(tmp_path: Path) -> None:
    done: set[str] = set()
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(png())
    done.add(str(tmp_path / "b.png"))
    arriving = watch(tmp_path, done, POLL)
    assert [next(arriving).name for _ in range(2)] == ["a.png", "c.png"]
    (tmp_path / "a.png").write_bytes(png(1))  # another image of the same name
    (tmp_path / "c.png").unlink()
    (tmp_path / "c.png").write_bytes(png(2))
    (tmp_path / "d.png").write_bytes(png(3))
    done.add(str(tmp_path / "d.png"))  # it grows while the folder is watched
    (tmp_path / "e.png").write_bytes(png(4))
    assert next(arriving).name == "e.png"


def test_a_folder_that_vanishes_is_waited_for(tmp_path: Path) -> None:
    """As a network drive does; its images come when it is back."""
    inbox, away = tmp_path / "inbox", tmp_path / "away"
    inbox.mkdir()
    (inbox / "a.png").write_bytes(png())
    arriving = watch(inbox, (), POLL)
    assert next(arriving) == inbox / "a.png"
    inbox.rename(away)

    def write() -> None:
        time.sleep(4 * POLL)
        (away / "b.png").write_bytes(png(1))
        away.rename(inbox)

    with at_the_same_time(write):
        assert next(arriving) == inbox / "b.png"


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png())
    assert next(watch(tmp_path, (), POLL)) == tmp_path / "b.png"


def test_what_is_no_folder_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for name in ("absent", "a.png"):
        with pytest.raises(InputError, match=rf"{name} is not a folder: give the folder where"):
            watch(tmp_path / name, ())


def test_it_ends_where_it_is_stopped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png())
    answers = iter([False, False, True])  # before each poll, and after each image
    found = list(watch(tmp_path, (), POLL, stopped=lambda: next(answers)))
    assert found == [tmp_path / "a.png"]
