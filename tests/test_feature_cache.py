"""Features in files: found again, keyed, damaged, half-written, made by two runs at once."""

import dataclasses
import json
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adtr_jax.backbones.pixels import Pixels
from adtr_jax.config import AdtrSettings
from adtr_jax.detectors import cache_key as cache_key_module
from adtr_jax.detectors.cache_key import cache_key
from adtr_jax.devices import checked_array
from adtr_jax.devices.checked_array import CheckedArray
from adtr_jax.devices.feature_cache import FeatureCache
from adtr_jax.errors import InputError
from adtr_jax.files import temporary

CHANGES = (("layers", (3,)), ("dtype", "bfloat16"))
SHAPES = [(5, 4, 3), (5,)]
KEY = {"backbone": "efficientnet-b4", "layers": [1, 2]}


class Features:
    """Fills the arrays with random values, and counts how often."""

    def __init__(self):
        self.fills = 0
        rng = np.random.default_rng(0)
        self.values = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]

    def of(self, cache: FeatureCache, key=KEY) -> list[np.ndarray]:
        def fill(arrays):
            self.fills += 1
            for array, values in zip(arrays, self.values, strict=True):
                array[...] = values

        arrays = cache.arrays(lambda: key, SHAPES, fill)
        for array, values in zip(arrays, self.values, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, values)
        return arrays


@pytest.fixture
def counted() -> Features:
    return Features()


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_what_fits_into_memory_makes_no_file(tmp_path, counted):
    size = 4 * (5 * 4 * 3 + 5)
    arrays = counted.of(FeatureCache(tmp_path / "cache", size))
    assert not isinstance(arrays[0], CheckedArray)
    assert not (tmp_path / "cache").exists()
    assert isinstance(counted.of(FeatureCache(tmp_path / "cache", size - 1))[0], CheckedArray)


def test_the_limit_is_two_fifths_of_the_free_memory(tmp_path, counted, monkeypatch):
    from adtr_jax.devices import memory

    class Free:
        available = 650

    monkeypatch.setattr(memory.psutil, "virtual_memory", Free)
    assert memory.of_host() == 260
    assert not isinstance(counted.of(FeatureCache(tmp_path))[0], CheckedArray)
    Free.available = 649
    assert isinstance(counted.of(FeatureCache(tmp_path))[0], CheckedArray)


def test_a_later_run_finds_the_file_and_cannot_change_it(tmp_path, counted):
    counted.of(FeatureCache(tmp_path, 0))
    arrays = counted.of(FeatureCache(tmp_path, 0))
    assert counted.fills == 1
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0][0] = 1


def test_another_key_is_another_file(tmp_path, counted):
    counted.of(FeatureCache(tmp_path, 0))
    counted.of(FeatureCache(tmp_path, 0), KEY | {"layers": [1, 3]})
    assert (counted.fills, len(list(tmp_path.iterdir()))) == (2, 2)


def test_a_file_of_another_key_under_this_name_is_made_again(tmp_path, counted):
    counted.of(FeatureCache(tmp_path / "other", 0), KEY | {"layers": [1, 3]})
    counted.of(FeatureCache(tmp_path / "cache", 0))
    only_file(tmp_path / "other").replace(only_file(tmp_path / "cache"))
    counted.of(FeatureCache(tmp_path / "cache", 0))
    assert counted.fills == 3
    counted.of(FeatureCache(tmp_path / "cache", 0))
    assert counted.fills == 3


def flip_bit(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("offset", [0, 100, 259])
def test_damage_is_found_where_it_is_read_and_the_file_made_again(tmp_path, counted, offset):
    counted.of(FeatureCache(tmp_path, 0))
    file = only_file(tmp_path)
    flip_bit(file, offset)
    with pytest.raises(InputError) as error:
        counted.of(FeatureCache(tmp_path, 0))
    assert str(error.value) == (
        f"{file} was damaged on the disc, and has been removed: the same command computes these "
        "features again, and goes on"
    )
    counted.of(FeatureCache(tmp_path, 0))
    assert counted.fills == 2


@pytest.mark.parametrize("offset", [260, 324, -1])
def test_a_file_with_damaged_digests_is_made_again(tmp_path, counted, offset):
    counted.of(FeatureCache(tmp_path, 0))
    flip_bit(only_file(tmp_path), offset)
    counted.of(FeatureCache(tmp_path, 0))
    counted.of(FeatureCache(tmp_path, 0))
    assert counted.fills == 2


def test_what_is_not_read_is_not_hashed_and_nothing_is_hashed_twice(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(checked_array, "BLOCK", 100)  # two rows of the first array, all of the next
    counted.of(FeatureCache(tmp_path, 0))
    flip_bit(only_file(tmp_path), 240 - 1)  # in the fifth row: the third block
    hashed, real = [], checked_array._digest

    def digest(array, block):
        hashed.append(int(block))
        return real(array, block)

    monkeypatch.setattr(checked_array, "_digest", digest)
    rows, _ = FeatureCache(tmp_path, 0).arrays(lambda: KEY, SHAPES, print)
    assert hashed == []
    np.testing.assert_array_equal(rows[1], counted.values[0][1])
    np.testing.assert_array_equal(rows[:2], counted.values[0][:2])
    assert hashed == [0]
    out = np.empty((2, 4, 3), np.float32)
    np.take(rows, np.array([3, 0]), axis=0, out=out, mode="clip")
    np.testing.assert_array_equal(out, counted.values[0][[3, 0]])
    assert hashed == [0, 1]
    with pytest.raises(InputError, match=r"was damaged on the disc"):
        rows[np.array([0, 4])]


def test_arrays_of_several_types_lie_in_one_file(tmp_path):
    values = [np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(10, dtype=np.uint8)[:, None]]

    def fill(arrays):
        for array, value in zip(arrays, values, strict=True):
            array[...] = value

    shapes, dtypes = [value.shape for value in values], [value.dtype for value in values]
    for limit in (33, 34):  # bytes
        cache = FeatureCache(tmp_path, limit)
        found = cache.arrays(lambda: KEY, shapes, fill, dtypes)
        for array, value in zip(found, values, strict=True):
            assert isinstance(array, CheckedArray) == (limit < 34)
            assert array.dtype == value.dtype
            np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("size", [0, 100, 260, 355, -1])
def test_a_cut_file_is_made_again(tmp_path, counted, size):
    counted.of(FeatureCache(tmp_path, 0))
    file = only_file(tmp_path)
    file.write_bytes(file.read_bytes()[:size])
    counted.of(FeatureCache(tmp_path, 0))
    assert counted.fills == 2


def test_what_killed_processes_left_is_removed(tmp_path, counted):
    left = tmp_path / f".0123-killed{temporary.SUFFIX}"
    left.mkdir()
    (left / "0123.features").write_bytes(bytes(1000))
    counted.of(FeatureCache(tmp_path))  # in memory
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_leaves_no_file(tmp_path):
    def fill(arrays):
        arrays[0][...] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path, 0).arrays(lambda: KEY, SHAPES, fill)
    assert not list(tmp_path.iterdir())


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path, counted):
    """Both have begun to write before either has ended."""
    both = threading.Barrier(2)

    def run() -> None:
        def fill(arrays):
            both.wait(timeout=30)
            for array, values in zip(arrays, counted.values, strict=True):
                array[...] = values
            both.wait(timeout=30)

        results.append(FeatureCache(tmp_path, 0).arrays(lambda: KEY, SHAPES, fill))

    results: list[list[np.ndarray]] = []
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 2
    for arrays in results:
        np.testing.assert_array_equal(arrays[0], counted.values[0])
    assert only_file(tmp_path).suffix == ".features"
    counted.of(FeatureCache(tmp_path, 0))
    assert counted.fills == 0


class OneWeight(Pixels):
    """A network with a weight."""

    def __init__(self, value: float):
        self.weight = nnx.Param(jnp.full(3, value))


def test_the_key_of_features_tells_apart_all_that_they_depend_on(monkeypatch):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    other = images.copy()
    other[1, 5, 6, 2] = 1
    settings = AdtrSettings(image_size=32, layers=(4,))
    layers, half = (dataclasses.replace(settings, **{name: value}) for name, value in CHANGES)
    first = cache_key(OneWeight(1), images, settings)
    assert first == cache_key(OneWeight(1), images.copy(), settings)
    keys = [
        first,
        cache_key(OneWeight(2), images, settings),
        cache_key(OneWeight(1), other, settings),
        cache_key(OneWeight(1), images, layers),
        cache_key(OneWeight(1), images, half),
    ]
    monkeypatch.setattr(OneWeight, "normalise", lambda self, pixels: jnp.asarray(pixels) / 255)
    keys.append(cache_key(OneWeight(1), images, settings))
    monkeypatch.setattr(cache_key_module, "VERSION", 0)
    keys.append(cache_key(OneWeight(1), images, settings))
    assert len({json.dumps(key) for key in keys}) == 7
