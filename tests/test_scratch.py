"""Arrays for as long as they are used, in memory or in a file that vanishes."""

import gc

import numpy as np
import psutil
import pytest

from adtr_jax.files import scratch as module
from adtr_jax.files.scratch import scratch


def test_a_large_one_is_in_a_file_that_has_no_name_and_vanishes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    folder = tmp_path / "run"
    small = scratch(folder, (10, 25), np.float32)
    assert not isinstance(small, np.memmap) and not folder.exists()
    free = psutil.disk_usage(str(tmp_path)).free
    large = scratch(folder, (2**21, 8), np.float32)
    assert isinstance(large, np.memmap) and large.shape == (2**21, 8)
    large[7] = 3
    assert large[7].tolist() == [3] * 8 and large.dtype == np.float32
    assert list(folder.iterdir()) == []
    assert psutil.disk_usage(str(tmp_path)).free < free - 2**25
    del large
    gc.collect()
    assert psutil.disk_usage(str(tmp_path)).free > free - 2**25


def test_no_room_is_an_error_at_once_and_not_a_crash_later(tmp_path):
    with pytest.raises(OSError, match=r"No space left|too large"):
        scratch(tmp_path, (2**50,), np.uint8)
    assert list(tmp_path.iterdir()) == []
