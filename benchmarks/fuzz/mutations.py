"""Damage that any bytes can suffer.

A mutation takes sound bytes and a source of random numbers, and returns others.
"""

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    *(0, 1, 2, 7, 127, 128, 255, 256, 10_000, 30_000, 2**15, 2**16 - 1, 2**24),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1),
)


def _span(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.randrange(1, longest))


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        position = rng.randrange(len(changed))
        changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng, 16)
    return data[:begin] + rng.randbytes(end - begin) + data[end:]


def set_number(data: bytes, rng: random.Random) -> bytes:
    """A length, a size or an offset of any width and byte order, often a huge one."""
    width = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % 2 ** (8 * width)
    begin = rng.randrange(max(1, len(data) - width))
    written = number.to_bytes(width, rng.choice(("little", "big")))
    return data[:begin] + written + data[begin + width :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 64))


def cut(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng, 512)
    return data[:end] + data[begin:end] * rng.choice((1, 1, 2, 100)) + data[end:]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A piece in another place."""
    begin, end = _span(data, rng, 256)
    place = rng.randrange(len(data))
    return data[:place] + data[begin:end] + data[place + end - begin :]


def fill(data: bytes, rng: random.Random) -> bytes:
    """A sector of zeros or ones, as a disc leaves it."""
    begin, end = _span(data, rng, 512)
    return data[:begin] + rng.choice((b"\0", b"\xff")) * (end - begin) + data[end:]


def replace(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", rng.randbytes(len(data)), data[: len(data) // 2] * 2, bytes(len(data))))


GENERIC: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits, set_bytes, set_number, set_number, truncate, append, cut, duplicate),
    *(splice, fill, replace),
)


def generic(data: bytes, rng: random.Random) -> bytes:
    """One to three of the above."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            data = rng.choice(GENERIC)(data, rng)
    return data
