"""Features in files: found again, keyed, damaged, half-written, made by two runs at once."""

import threading
from pathlib import Path

import numpy as np
import pytest

from adtr_jax.feature_cache import FeatureCache

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
def features() -> Features:
    return Features()


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_what_fits_into_memory_makes_no_file(tmp_path, features):
    size = 4 * (5 * 4 * 3 + 5)
    arrays = features.of(FeatureCache(tmp_path / "cache", size))
    assert not isinstance(arrays[0], np.memmap)
    assert not (tmp_path / "cache").exists()
    assert isinstance(features.of(FeatureCache(tmp_path / "cache", size - 1))[0], np.memmap)


def test_the_limit_is_two_fifths_of_the_free_memory(tmp_path, features, monkeypatch):
    from adtr_jax import memory

    class Free:
        available = 650

    monkeypatch.setattr(memory.psutil, "virtual_memory", Free)
    assert memory.of_host() == 260
    assert not isinstance(features.of(FeatureCache(tmp_path))[0], np.memmap)
    Free.available = 649
    assert isinstance(features.of(FeatureCache(tmp_path))[0], np.memmap)


def test_a_later_run_finds_the_file_and_cannot_change_it(tmp_path, features):
    features.of(FeatureCache(tmp_path, 0))
    arrays = features.of(FeatureCache(tmp_path, 0))
    assert features.fills == 1
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 1


def test_another_key_is_another_file(tmp_path, features):
    features.of(FeatureCache(tmp_path, 0))
    features.of(FeatureCache(tmp_path, 0), KEY | {"layers": [1, 3]})
    assert (features.fills, len(list(tmp_path.iterdir()))) == (2, 2)


@pytest.mark.parametrize("offset", [0, 100, 259, -1])
def test_a_damaged_file_is_made_again(tmp_path, features, offset):
    features.of(FeatureCache(tmp_path, 0))
    file = only_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)
    features.of(FeatureCache(tmp_path, 0))
    assert features.fills == 2
    features.of(FeatureCache(tmp_path, 0))
    assert features.fills == 2


@pytest.mark.parametrize("size", [0, 100, 291])
def test_a_cut_file_is_made_again(tmp_path, features, size):
    features.of(FeatureCache(tmp_path, 0))
    file = only_file(tmp_path)
    assert file.stat().st_size == 260 + 32
    file.write_bytes(file.read_bytes()[:size])
    features.of(FeatureCache(tmp_path, 0))
    assert features.fills == 2


def test_a_run_that_fails_leaves_no_file(tmp_path):
    def fill(arrays):
        arrays[0][...] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path, 0).arrays(lambda: KEY, SHAPES, fill)
    assert not list(tmp_path.iterdir())


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path, features):
    """Both have begun to write before either has ended."""
    both = threading.Barrier(2)

    def run() -> None:
        def fill(arrays):
            both.wait(timeout=30)
            for array, values in zip(arrays, features.values, strict=True):
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
        np.testing.assert_array_equal(arrays[0], features.values[0])
    assert only_file(tmp_path).suffix == ".features"
    features.of(FeatureCache(tmp_path, 0))
    assert features.fills == 0
