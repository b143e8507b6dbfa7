"""The next item is read while the caller has the one before."""

import threading

import pytest

from adtr_jax.devices.read_ahead import read_ahead


def test_one_is_read_ahead_and_no_more():
    begun = [threading.Event() for _ in range(4)]

    def read(i: int) -> int:
        begun[i].set()
        return i * i

    found = []
    for item, value in read_ahead(read, range(4)):
        found.append((item, value))
        if item < 3:
            assert begun[item + 1].wait(timeout=30)  # without the next being asked for
        assert not any(event.is_set() for event in begun[item + 2 :])
    assert found == [(0, 0), (1, 1), (2, 4), (3, 9)]


@pytest.mark.parametrize("items", [[], [5]])
def test_for_a_single_one_no_thread_is_begun(items):
    threads = []

    def read(i: int) -> int:
        threads.append(threading.current_thread())
        return i

    assert list(read_ahead(read, items)) == [(i, i) for i in items]
    assert set(threads) <= {threading.main_thread()}


def test_an_error_is_the_callers():
    def read(i: int) -> int:
        return 1 // (i - 1)

    values = read_ahead(read, [0, 1, 2])
    assert next(values) == (0, -1)
    with pytest.raises(ZeroDivisionError):
        next(values)
