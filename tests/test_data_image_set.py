"""Classed images in folders and zip files, pixels as files, and telling the sources apart."""

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import Sample, image_sources, load_images
from adtr_jax.data.decode import decode_image
from adtr_jax.data.image_set import ImageSet, PixelImage
from adtr_jax.errors import InputError


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2, 2), value).save(buffer, "PNG")
    return buffer.getvalue()


# Names in an order that is not sorted, as a zip file may have them.
CONTENT = {
    "train/dog/b.png": png(1),
    "train/dog/a.PNG": png(2),
    "train/cat/a.png": png(3),
    "test/cat/a.png": png(4),
    "test/cat-like/a.png": png(5),
}


def folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def archive(path: Path, content: dict[str, bytes], above: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(above + name, data)
    return path


def values(images: ImageSet) -> dict[tuple[str, str], list[int]]:
    return {
        key: load_images([Sample("", file, "") for file in files], 1)[:, 0, 0, 0].tolist()
        for key, files in images.files.items()
    }


EXPECTED = {
    ("train", "cat"): [3],
    ("train", "dog"): [2, 1],
    ("test", "cat"): [4],
    ("test", "cat-like"): [5],
}


@pytest.mark.parametrize("above", ["", "images/", "images"])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_zip_files(tmp_path: Path, above: str, packed: bool) -> None:
    """Images by class, sorted by name, with hidden files, companions and what macOS adds."""
    top = f"{above.rstrip('/')}/" if above else ""
    further = {"train/dog/.DS_Store": b"x", "train/dog/notes.txt": b"x", "train/labels.csv": b"x"}
    content = {f"{top}{name}": data for name, data in (further | CONTENT).items()}
    if packed:
        content |= {"__MACOSX/train/._dog": b"x", "readme.txt": b"x"}
        source = archive(tmp_path / "a.zip", content)
    else:
        source = folder(tmp_path / "a", content | {".cache/train/dog/c.png": b"x"})
    images = image_sources.read(source)
    assert images.classes == ("cat", "cat-like", "dog")
    assert values(images) == EXPECTED
    assert str(images.of("train", "dog")[1]) == f"{source}/{top}train/dog/b.png"


def test_a_zip_file_with_entries_of_folders(tmp_path: Path) -> None:
    names = ("train/", "train/dog/", "train/cat/", "test/", "test/cat/")
    content = dict.fromkeys(names, b"") | CONTENT
    assert values(image_sources.read(archive(tmp_path / "a.zip", content))) == EXPECTED


def test_images_of_one_split_will_do(tmp_path: Path) -> None:
    images = image_sources.read(folder(tmp_path / "a", {"train/cat/a.png": png(7)}))
    assert values(images) == {("train", "cat"): [7]}
    with pytest.raises(InputError, match="/a holds no test images of the class cat: add them"):
        images.of("test", "cat")
    with pytest.raises(InputError, match=r"no class in .*/a is called cut: did you mean cat\?"):
        images.of("train", "cut")


def error_of(source: Path) -> str:
    with pytest.raises(InputError) as caught:
        images = image_sources.read(source)
        values(images)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(source.as_posix(), "SOURCE")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("train/dog/c.gif", "SOURCE/train/dog/c.gif has an unknown file type: convert it (png, "),
        ("train/c.png", "SOURCE/train/c.png lies directly in train: move it into one of the "),
        ("train/dog/more/c.png", "SOURCE/train/dog/more is a folder where images were expected"),
        ("train/bird/c.txt", "SOURCE/train/bird holds no images: put images there, or remove"),
        ("train/dog/c.png", "SOURCE/train/dog/c.png is not a png, jpg, bmp, tif or webp image"),
    ],
)
def test_files_out_of_place(tmp_path: Path, packed: bool, added: str, message: str) -> None:
    content = CONTENT | {added: b"no image"}
    made = archive(tmp_path / "a", content) if packed else folder(tmp_path / "a", content)
    assert error_of(made).startswith(message)


def test_sources_that_are_nothing_of_all_this(tmp_path: Path) -> None:
    gone = error_of(tmp_path / "gone")
    assert gone.startswith("SOURCE does not exist: give a folder or zip file of train/CLASS and ")
    holds_none = "SOURCE holds no classed images that can be read: give a folder or zip"
    assert error_of(folder(tmp_path / "flat", {"a.png": png(1)})).startswith(holds_none)
    two = {"a/train/cat/a.png": png(1), "b/train/cat/a.png": png(1)}
    assert error_of(folder(tmp_path / "two", two)).startswith(holds_none)
    empty = folder(tmp_path / "empty", {"train/notes.txt": b""})
    assert error_of(empty).startswith("SOURCE holds no classes: put images into train/CLASS and")
    picture = folder(tmp_path / "files", {"a.png": png(1)}) / "a.png"
    assert error_of(picture).startswith("SOURCE is no source of classed images: give a folder")
    flat = archive(tmp_path / "a.zip", {"a.png": png(1)})
    assert error_of(flat).startswith("SOURCE holds no images in train/CLASS or test/CLASS: pack")


def test_truncated_and_damaged_zip_files(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", {"train/cat/a.bmp": bytes(range(256)) * 64})
    sound = source.read_bytes()
    source.write_bytes(sound[:-30])
    assert error_of(source).startswith("SOURCE is no source of classed images")
    source.write_bytes(sound[:60] + b"\x00\x00\x00\x00" + sound[64:])
    assert error_of(source).startswith("cannot read SOURCE/train/cat/a.bmp (Error -3 while decom")
    source.write_bytes(sound[: sound.index(b"PK\x01\x02")] + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0")
    assert error_of(source).startswith("cannot read SOURCE (")


def test_a_wrong_checksum(tmp_path: Path) -> None:
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_STORED) as file:
        file.writestr("train/cat/a.png", png(1))
    data = bytearray(source.read_bytes())
    data[50] ^= 1
    source.write_bytes(data)
    assert error_of(source).startswith("cannot read SOURCE/train/cat/a.png (Bad CRC-32 for file")


def test_encrypted_members(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", {"train/cat/a.png": png(1)})
    data = bytearray(source.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    source.write_bytes(data)
    message = error_of(source)
    assert message.startswith("cannot read SOURCE/train/cat/a.png (File")
    assert "is encrypted, password required for extraction" in message


def test_a_member_of_absurd_size(tmp_path: Path) -> None:
    """It is refused by the zip file's directory, before anything is unpacked."""
    source = archive(tmp_path / "a.zip", {"train/cat/a.png": png(1)})
    data = bytearray(source.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 300_000_000)
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png claims to have 300,000,000 bytes, more than the"):
        image_sources.read(source)


def test_names_that_climb_out_of_the_folder_are_ignored(tmp_path: Path) -> None:
    names = ("train/../secret/a.png", "../train/cat/b.png", "train/cat/../../c.png")
    source = archive(tmp_path / "a.zip", CONTENT | dict.fromkeys(names, png(9)))
    assert values(image_sources.read(source)) == EXPECTED
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_and_of_unreadable_names(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", CONTENT)
    with zipfile.ZipFile(source, "a") as file:
        file.writestr("train/dog/b.png", png(8))
    assert error_of(source) == "SOURCE holds two members of the same name: pack it again"
    source = archive(tmp_path / "b.zip", {"train/cat/a\nb.png": png(1)})
    assert error_of(source) == "SOURCE holds a member called 'train/cat/a\\nb.png': rename it"


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(InputError, match=r"python\.tar\.gz is neither a file nor a folder: give a"):
        image_sources.read(tmp_path / "cifar-10-python.tar.gz")


def test_many_threads_read_one_zip_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = {}
    for index in range(300):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
        content[f"train/cat/{index:03d}.png"] = buffer.getvalue()
    images = image_sources.read(archive(tmp_path / "a.zip", content))
    files = images.of("train", "cat")
    loaded = load_images([Sample("", file, "") for file in files], 8)
    expected = [np.asarray(Image.open(io.BytesIO(data))) for data in content.values()]
    np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28), (1, 1), (1, 3, 3), (5, 7), (16, 16)])
def test_pixels_survive_as_a_file(shape: tuple[int, ...]) -> None:
    """Of transposed, read-only pixels; all greys, and images of two greys or one."""
    rng = np.random.default_rng(0)
    for high in (256, 2, 1):
        values = rng.integers(0, high, (3, *shape), np.uint8) * (255 // max(high - 1, 1))
        pixels = values.swapaxes(1, 2)[1]
        pixels.flags.writeable = False
        image = decode_image(PixelImage(pixels, "batch[1]"))
        assert image.mode == ("RGB" if len(shape) == 3 else "L")
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pixels_of_every_grey_survive() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = PixelImage(pixels, "batch[1]")
    np.testing.assert_array_equal(np.asarray(decode_image(file)), pixels)
    assert str(file) == "batch[1]"


def test_cifar10_in_a_zip_file(shared_data: Path) -> None:
    images = image_sources.read(shared_data / "cifar10_jpeg.zip")
    assert len(images.classes) == 10
    assert {len(images.of("train", name)) for name in images.classes} == {5000}
    assert {len(images.of("test", name)) for name in images.classes} == {1000}
    cats = load_images([Sample("", file, "") for file in images.of("test", "cat")[:50]], 32)
    assert cats.shape == (50, 32, 32, 3)
    assert 40 < cats.std() < 80
