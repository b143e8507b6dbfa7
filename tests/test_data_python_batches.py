"""CIFAR's official batches: every pickle protocol, what is missing or damaged, hostile files."""

import gzip
import os
import pickle
import re
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import (
    CIFAR100_CLASSES,
    Pickle,
    batch,
    cifar10,
    cifar100,
    pack,
    python2,
    python3,
    write,
)

from adtr_jax.data import Sample, batch_pickle, cifar, image_sources, load_images, python_batches
from adtr_jax.data.image_set import ImageSet
from adtr_jax.errors import InputError

FORMATS = pytest.mark.parametrize(
    "pickled", [python2, *map(python3, (2, 3, 4, 5))], ids=["python2", "2", "3", "4", "5"]
)


def pixels(images: ImageSet, split: Any, name: str) -> np.ndarray:
    return load_images([Sample(str(file), file, name) for file in images.of(split, name)], 32)


def error_of(source: Path) -> str:
    with pytest.raises(InputError) as caught:
        image_sources.read(source)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(source.as_posix(), "SOURCE")


@FORMATS
def test_cifar10_has_the_pixels_that_were_saved(tmp_path: Path, pickled: Pickle) -> None:
    files, train, test = cifar10(pickled)
    images = image_sources.read(write(tmp_path / "batches", files))
    assert images.classes == cifar.CLASSES
    for label, name in enumerate(cifar.CLASSES):
        np.testing.assert_array_equal(pixels(images, "train", name), train[label::10])
        np.testing.assert_array_equal(pixels(images, "test", name), test[label::10])
    second = images.of("train", "bird")[3]
    assert str(second) == f"{tmp_path}/batches/data_batch_2[12]"


@FORMATS
def test_cifar100_takes_the_fine_labels(tmp_path: Path, pickled: Pickle) -> None:
    files, train = cifar100(pickled)
    images = image_sources.read(write(tmp_path / "cifar-100-python", files).parent)
    assert images.classes == CIFAR100_CLASSES
    np.testing.assert_array_equal(pixels(images, "train", "wolf"), train[3::4])


@pytest.mark.parametrize("folder", ["cifar-10-batches-py/", ""])
def test_the_archive_is_read_as_its_folder(tmp_path: Path, folder: str) -> None:
    files, train, _ = cifar10()
    further = {"readme.html": b"read me", "data_batch_1.bak": b"no pickle"}
    archive = pack(tmp_path / "cifar-10-python.tar.gz", further | files, folder)
    images = image_sources.read(archive)
    np.testing.assert_array_equal(pixels(images, "train", "truck"), train[9::10])
    assert str(images.of("test", "cat")[0]) == f"{archive}/test_batch[3]"


@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_by_columns_and_of_labels(tmp_path: Path, protocol: int) -> None:
    """What np.asfortranarray, and labels kept as an array of any integers, make of a batch."""
    files, images = cifar100()
    columns = batch(images, [0, 1, 2, 3] * 3)
    columns[b"data"] = np.asfortranarray(columns[b"data"])
    for dtype in ("<i8", ">i4", "|u1"):
        columns[b"fine_labels"] = np.array(columns[b"labels"], dtype)
        files["train"] = pickle.dumps(columns, protocol)
        read = image_sources.read(write(tmp_path / dtype[1:], files))
        np.testing.assert_array_equal(pixels(read, "train", "apple"), images[::4])


def test_text_keys_are_read_as_bytes_are(tmp_path: Path) -> None:
    files, images = cifar100()
    for name in files:
        value = pickle.loads(files[name], encoding="latin1")
        files[name] = pickle.dumps(value, 4)
        assert all(type(key) is str for key in value)
    read = image_sources.read(write(tmp_path / "batches", files))
    np.testing.assert_array_equal(pixels(read, "test", "wolf"), images[3::4])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data_batch_3", "SOURCE/data_batch_3 is missing: unpack the official archive again"),
        ("batches.meta", "SOURCE/batches.meta is missing: unpack the official archive again"),
    ],
)
def test_missing_files(tmp_path: Path, name: str, message: str) -> None:
    files, _, _ = cifar10()
    del files[name]
    assert error_of(write(tmp_path / "a", files)) == message
    archive = pack(tmp_path / "a.tar.gz", files, "cifar-10-batches-py/")
    assert error_of(archive) == message


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    message = error_of(pack(tmp_path / "a.tar.gz", {"a.png": b""}, "images/"))
    assert message.startswith("SOURCE holds none of the official batches: give cifar-10-python")


BLACK = np.zeros((2, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fine_labels": [0, 4]}, "has labels from 0 to 4, but there are 4 classes"),
        ({"fine_labels": [-1, 0]}, "has labels from -1 to 0, but there are 4 classes"),
        ({"fine_labels": [0]}, "has 1 labels for 2 images"),
        ({"fine_labels": [0, 2**70]}, "is truncated or damaged ("),
        ({"fine_labels": [0, None]}, "damaged (fine_labels is no list of integers)"),
        ({"fine_labels": None}, "damaged (fine_labels is no list of integers)"),
        ({"data": np.zeros((2, 3071), np.uint8)}, "data of type uint8 and shape (2, 3071) instead"),
        ({"data": np.zeros((2, 3072), np.int16)}, "data of type int16 and shape (2, 3072) instead"),
        ({"data": np.zeros((2, 3072), np.float32)}, "an array of something else than integers"),
        ({"data": [[0] * 3072] * 2}, "damaged (data is no list of integers)"),
    ],
)
def test_batches_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files, _ = cifar100()
    value = {"data": batch(BLACK, [])[b"data"], "fine_labels": [0, 1]} | change
    files["train"] = pickle.dumps(value, 4)
    found = error_of(write(tmp_path / "a", files))
    assert found.startswith("SOURCE/train ") and message in found


def test_missing_entries_and_odd_names(tmp_path: Path) -> None:
    files, _ = cifar100()
    files["train"] = python2({b"data": BLACK.reshape(2, -1)})
    assert error_of(write(tmp_path / "a", files)) == (
        "SOURCE/train has no entry fine_labels: get the data set again"
    )
    for index, odd in enumerate([["../x"], ["a", "a"], [".hidden"], ["a\nb"], [""]]):
        files["meta"] = pickle.dumps({"fine_label_names": odd})
        message = error_of(write(tmp_path / f"b{index}", files))
        assert message.startswith("SOURCE/meta has names that are no names of classes")


@pytest.mark.parametrize("kept", [0, 1, 100, 30_000, -1])
def test_truncated_files(tmp_path: Path, kept: int) -> None:
    files, _ = cifar100()
    files["train"] = files["train"][:kept]
    assert error_of(write(tmp_path / "a", files)).startswith("SOURCE/train is truncated or damaged")


@pytest.mark.parametrize("kept", [2, 20, 1000, -4])
def test_truncated_archives(tmp_path: Path, kept: int) -> None:
    archive = pack(tmp_path / "a.tar.gz", cifar100()[0], "cifar-100-python/")
    archive.write_bytes(archive.read_bytes()[:kept])
    assert error_of(archive).startswith("SOURCE is truncated or damaged (")


def test_absurd_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = cifar100()
    folder = write(tmp_path / "a", files)
    archive = pack(tmp_path / "a.tar.gz", files, "cifar-100-python/")
    monkeypatch.setattr(python_batches, "MAX_BYTES", 20_000)
    assert "SOURCE/train is larger than 20,000 bytes" in error_of(folder)
    assert "/train is larger than 20,000 bytes" in error_of(archive)
    monkeypatch.setattr(python_batches, "MAX_ARCHIVE_BYTES", 50_000)
    monkeypatch.setattr(python_batches, "MAX_BYTES", 2**29)
    assert "SOURCE holds more than 50,000 bytes, which no official archive" in error_of(archive)


def peak(read: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy hold at a time."""
    tracemalloc.start()
    read()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_a_text_is_refused_before_it_takes_four_times_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A character beyond Latin-1 makes Python keep all of the text in four bytes a character."""
    size = 4_000_000
    wide = b"X" + struct.pack("<I", size) + "😀".encode() + b"a" * (size - 4)
    code = b"\x80\x02}" + text("data") + wide + b"s."
    monkeypatch.setattr(batch_pickle._Machine, "max_bytes", 3 * size)
    assert peak(lambda: unpickled(code)) < 2.2 * size
    assert "decodes to more than 12,000,000 bytes of text and numbers" in unpickled(code)
    monkeypatch.setattr(batch_pickle._Machine, "max_bytes", 5 * size)
    assert peak(lambda: batch_pickle.unpickle(code, "train")) > 4 * size  # so it does
    narrow = b"X" + struct.pack("<I", size) + "é".encode() * (size // 2)
    latin = b"\x80\x02}" + text("data") + narrow + b"s."
    monkeypatch.setattr(batch_pickle._Machine, "max_bytes", size + 1000)
    assert batch_pickle.unpickle(latin, "train")["data"] == "é" * (size // 2)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_name_in_an_archive_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    size = 30_000_000
    member = tarfile.TarInfo("train")
    member.type, member.size = kind, size
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as packed:
        packed.write(
            member.tobuf(tarfile.USTAR_FORMAT) + b"9 comment=" + b"\xf0\x9f\x98\x80" * (size // 4)
        )
    assert "a name or attributes of 30,000,000 bytes" in error_of(tmp_path / "a.tar.gz")
    assert peak(lambda: error_of(tmp_path / "a.tar.gz")) < 2_000_000


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(cifar100()[0]["train"])
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo("cifar-100-python/train")
            member.type, member.linkname = kind, str(tmp_path / "secret")
            tar.addfile(member)
    assert "SOURCE holds none of the official batches" in error_of(tmp_path / "a.tar.gz")


class Call:
    """An object that calls a function when pickle loads it."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def unpickled(code: bytes) -> str:
    with pytest.raises(InputError) as caught:
        batch_pickle.unpickle(code, "train")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("train ")
    return message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_that_run_code_are_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    attack = Call(os.system, f"touch {canary}")
    files, _ = cifar100()
    for index, value in enumerate((attack, {b"data": attack}, {b"data": [(attack,)]})):
        files["train"] = pickle.dumps(value, protocol)
        message = error_of(write(tmp_path / str(index), files))
        assert message == (
            "SOURCE/train asks for 'posix.system', which images and labels do not need; nothing "
            "was run: get the data set from its publisher"
        )
    assert not canary.exists()
    pickle.loads(files["train"])
    assert canary.exists()  # so the attack is real


def text(value: str) -> bytes:
    """The pickle instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def test_every_other_way_to_run_code_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    command = text(f"touch {canary}")
    attacks = [
        ("asks for 'posix.system'", b"cposix\nsystem\n(" + command + b"tR."),
        ("asks for 'posix.system'", text("posix") + text("system") + b"\x93" + command + b"\x85R."),
        ("asks for '_codecs.decode'", b"c_codecs\ndecode\n" + command + b"\x85R."),
        ("asks for 'numpy.ndarray.tofile'", b"cnumpy\nndarray.tofile\n."),
        ("asks for 'numpy.load'", b"cnumpy\nload\n(" + command + b"tR."),
        ("pickle instruction INST", b"(" + command + b"iposix\nsystem\n."),
        ("pickle instruction OBJ", b"(" + command + b"o."),
        ("pickle instruction EXT1", b"\x82\x01" + command + b"\x85R."),
        ("pickle instruction NEWOBJ", b"cnumpy\nndarray\n)\x81."),
        ("pickle instruction PERSID", b"Pcommand\n."),
        ("pickle instruction BINPERSID", command + b"Q."),
    ]
    for reason, code in attacks:
        message = unpickled(b"\x80\x04" + code)
        assert reason in message and "nothing was run" in message
    assert not canary.exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"cnumpy\nndarray\n)R.", "a call of a NoneType"),
        (b"cnumpy\ndtype\n)R.", "(missing "),
        (b"cnumpy\ndtype\nX\x01\x00\x00\x00ONN\x87R.", "something else than integers"),
        (b"cnumpy\ndtype\n]NN\x87R.", "something else than integers"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "unknown encoding"),
        (b"]}b.", "a state for a list"),
        (b"N(NNu.", "items without a dictionary"),
        (b"}(Nu.", "items without a dictionary"),
        (b"}(e.", "items without a list"),
        (b"})Ns.", "a name is a tuple, or too long"),
        (b"}X\x65\x00\x00\x00" + b"a" * 101 + b"Ns.", "a name is a str, or too long"),
        (b"}X\x01\x00\x00\x00aNU\x01aN(s.", "damaged ("),
        (b"}(U\x01aNX\x01\x00\x00\x00aNu.", "two entries are called a"),
        (b"].", "it holds a list, not a dictionary"),
        (b"t.", "pop from empty list"),
        (b"(0.", "pickle instruction POP"),
        (b"h\x07.", "damaged (7)"),
        (b"q\x00.", "list index out of range"),
        (b".", "not enough values to unpack"),
        (b"NN.", "too many values to unpack"),
        (b"NN\x93.", "a name that is no text"),
        (b"\xff", "opcode b'\\\\xff' unknown"),
        (b"X\xff\xff\xff\x7fab", "expected 2147483647 bytes in a unicodestring4"),
        (b"N", "pickle exhausted before seeing STOP"),
        # The next three kill or hang pickle.Unpickler, whatever its find_class forbids.
        (b"})" + b"\x85" * 190_000 + b"Ns.", "a name is a tuple"),
        (b"}" + b"K\x01" + b"q\x01h\x01\x86" * 60 + b"Ns.", "a name is a tuple"),
        (b"Nr\xff\xff\xff\xff.", "it holds a NoneType"),
        (b"(" * 90_000 + b"t" * 90_000 + b".", "it holds a tuple"),
    ],
)
def test_nonsense_and_bombs_are_refused(code: bytes, reason: str) -> None:
    assert reason in unpickled(b"\x80\x02" + code)


def test_the_number_of_instructions_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_pickle._Machine, "max_instructions", 1000)
    assert "has more than 1,000 pickle instructions" in unpickled(b"\x80\x02" + b"]" * 1001 + b".")


def test_no_instruction_copies_what_it_refers_to() -> None:
    """Bytes of 1 MB encoded 300 times over, and arrays of them, would take 0.6 GB."""
    big = text("x" * 1_000_000) + b"q\x00" + text("latin1") + b"q\x01"
    encoded = b"c_codecs\nencode\nh\x00h\x01\x86R"
    array = b"cnumpy.core.multiarray\n_reconstruct\nNNN\x87R(K\x01)N\x89" + encoded + b"tb"
    code = b"\x80\x02]" + big + b"(" + (encoded + array) * 300 + b"t."
    tracemalloc.start()
    message = unpickled(code)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "too many values to unpack" in message
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"content": b"12345"}, "an array of another size than it claims"),
        ({"content": "€23456"}, "ordinal not in range(256)"),
        ({"content": None}, "an array is made of a NoneType"),
        ({"dtype": None}, "an array without type or shape"),
        ({"shape": [2, 3]}, "an array without type or shape"),
        ({"shape": (-2, -3)}, "an array of impossible shape"),
        ({"shape": (2**20, 2**20, 0)}, "an array of impossible shape"),
        ({"shape": (2, 3, 1, 1, 1)}, "an array of impossible shape"),
        ({"order": "K"}, "an array of impossible shape"),
    ],
)
def test_arrays_whose_parts_do_not_fit(change: dict[str, Any], reason: str) -> None:
    parts = {"content": b"123456", "dtype": batch_pickle._Dtype("u1"), "shape": (2, 3)}
    sound = batch_pickle.Array(**parts)
    assert batch_pickle.integers({"a": sound}, "a", "train").tolist() == [
        [49, 50, 51],
        [52, 53, 54],
    ]
    with pytest.raises(InputError, match=re.escape(reason)):
        batch_pickle.integers({"a": batch_pickle.Array(**parts | change)}, "a", "train")
