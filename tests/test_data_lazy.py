"""Arrays that are decoded when they are read: what they give, hold, and do not allow."""

import functools
import hashlib
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from adtr_jax.data import Sample, load_images, load_masks
from adtr_jax.data.good_images import GoodImages
from adtr_jax.data.lazy import PART, LazyArray, digest, digests
from adtr_jax.errors import InputError

SIDE = 16


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """More than are decoded together, each in one colour of its own."""
    found = []
    for i in range(PART + 3):
        file = tmp_path / f"{i}.png"
        Image.new("RGB", (SIDE, SIDE), (i, 2 * i, 7)).save(file)
        found.append(Sample(file.name, file, "good"))
    return found


def lazy(samples) -> LazyArray:
    read = functools.partial(load_images, size=SIDE)
    return LazyArray(samples, read, (SIDE, SIDE, 3), np.dtype(np.uint8), "image")


def test_it_is_indexed_as_the_array_is(samples):
    images, whole = lazy(samples), load_images(samples, SIDE)
    assert images.shape == whole.shape and images.dtype == whole.dtype
    assert len(images) == len(whole) == PART + 3
    np.testing.assert_array_equal(images, whole)
    np.testing.assert_array_equal(images[5], whole[5])
    np.testing.assert_array_equal(images[-1], whole[-1])
    odd = np.arange(len(whole)) % 2 == 1
    for index in (slice(2, 9), slice(0, 0), np.array([7, 7, 0]), odd):
        assert isinstance(images[index], LazyArray)
        np.testing.assert_array_equal(images[index], whole[index])
    np.testing.assert_array_equal(images[odd][1:3][1], whole[5])
    with pytest.raises(IndexError):
        images[len(whole)]


def test_digests_are_of_the_pixels_and_are_known_afterwards(samples):
    images, whole = lazy(samples), load_images(samples, SIDE)
    found = digests(images)
    assert found == digests(whole) == tuple(map(digest, whole))
    assert len(set(found)) == len(whole)
    known = LazyArray(samples, images.read, images.row, images.dtype, "image", found)
    assert digests(known[::2]) == found[::2]
    # As in the settings.json of every run so far.
    assert found[1] == hashlib.sha256(whole[1].tobytes()).hexdigest()[:16]


def test_a_file_that_changes_after_its_check_is_an_error(samples):
    images = lazy(samples)
    known = LazyArray(samples, images.read, images.row, images.dtype, "image", digests(images))
    np.testing.assert_array_equal(known[:PART], images[:PART])
    Image.new("RGB", (SIDE, SIDE), (0, 0, 0)).save(samples[PART + 1].image)
    np.testing.assert_array_equal(known[: PART + 1], images[: PART + 1])
    with pytest.raises(InputError) as error:
        np.asarray(known[3:])
    assert str(error.value) == (
        f"{samples[PART + 1].image}: the image has changed since it was checked: leave the files "
        "alone until the command has ended, and start it again"
    )


def test_a_bad_file_is_found_by_the_check(samples):
    samples[PART].image.write_bytes(b"no image")
    with pytest.raises(InputError, match=rf"^{samples[PART].image} is not a png"):
        digests(lazy(samples))


def test_masks_of_normal_images_are_empty_and_their_files_not_looked_for(samples, tmp_path):
    mask = tmp_path / "mask.png"
    Image.new("L", (SIDE, SIDE), 255).save(mask)
    mixed = [samples[0], Sample("a", samples[1].image, "crack", mask), samples[2]]

    def read(samples):
        return load_masks(samples, SIDE).marked

    masks = LazyArray(mixed, read, (SIDE, SIDE), np.dtype(bool), "mask")
    assert np.asarray(masks).sum((1, 2)).tolist() == [0, SIDE**2, 0]
    assert digests(masks)[0] == digests(masks)[2] != digests(masks)[1]


def test_the_check_holds_a_part_of_the_images_at_a_time():
    row = (64, 64, 3)

    def read(items):
        return np.stack([np.full(row, i % 256, np.uint8) for i in items])

    images = LazyArray(range(4096), read, row, np.dtype(np.uint8), "image")
    tracemalloc.start()
    try:
        assert len(digests(images)) == 4096
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.prod(images.shape) == 48 * 2**20
    assert peak < 4 * 2**20


def test_good_images_of_files_are_decoded_again_and_those_in_memory_kept(samples):
    in_memory = np.full((SIDE, SIDE, 3), 200, np.uint8)
    files = [sample.image for sample in samples[:3]]
    good = GoodImages.read([files[0], in_memory, str(files[1]), files[0], files[2]], SIDE, 1.0)
    assert good.repeated == 1
    expected = load_images(samples[:3], SIDE)
    whole = np.stack([expected[0], in_memory, *expected[1:]])
    np.testing.assert_array_equal(good.pixels, whole)
    np.testing.assert_array_equal(good.pixels[np.array([3, 1])], whole[[3, 1]])
    assert good.digests == digests(whole)
    files[1].unlink()
    np.testing.assert_array_equal(good.pixels[:2], whole[:2])
    with pytest.raises(InputError, match=f"cannot read {files[1]}"):
        np.asarray(good.pixels)
