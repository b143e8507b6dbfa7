"""Damage of what a format holds, with its lengths and checksums made right again."""

import contextlib
import gzip
import io
import json
import pickletools
import random
import struct
import tarfile
import zipfile
import zlib
from typing import Any

from benchmarks.fuzz.mutations import NUMBERS, Mutation, generic, set_number

_PALETTE = 3  # PNG's colour type


def png(data: bytes, rng: random.Random) -> bytes:
    """Chunks with other contents, in another order, doubled, left out or foreign; sound CRCs."""
    chunks = [(kind, body) for kind, body in _chunks(data)]
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    match rng.randrange(7):
        case 0:
            chunks[index] = kind, generic(body, rng)
        case 1:
            del chunks[index]
        case 2:
            chunks.insert(rng.randrange(len(chunks)), (kind, body))
        case 3:
            rng.shuffle(chunks)
        case 4:
            foreign = rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"gAMA", b"acTL"))
            chunks.insert(
                rng.randrange(1, len(chunks)), (foreign, rng.randbytes(rng.randrange(40)))
            )
        case 5:
            chunks[0] = b"IHDR", _header(rng, chunks[0][1])
        case _:
            # As many pixels as it claims, all zero, in a small file.
            header = _header(rng, chunks[0][1])
            width, height = struct.unpack(">II", header[:8])
            packed = zlib.compress(bytes(min(width * height // 8 + height, 2**24)), 1)
            palette = [(b"PLTE", bytes(6)), (b"tRNS", b"\0")] if header[9] == _PALETTE else []
            chunks = [(b"IHDR", header), *palette, (b"IDAT", packed), (b"IEND", b"")]
    return data[:8] + b"".join(_chunk(*chunk) for chunk in chunks)


def _header(rng: random.Random, header: bytes) -> bytes:
    """Another size, bit depth, colour type and so on."""
    width, height = (rng.choice((1, 16, 1000, 9_000, 13_000, 30_000, 2**31 - 1)) for _ in range(2))
    rest = rng.choice(
        (header[8:], bytes((rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 4, 6)), 0, 0, 0)))
    )
    return struct.pack(">II", width, height) + rest


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    position, found = 8, []
    while position < len(data):
        (size,) = struct.unpack(">I", data[position : position + 4])
        found.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += size + 12
    return found


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(data: bytes, rng: random.Random) -> bytes:
    """A field of the first directory, as EXIF has one too: another tag, type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack(f"{order}I", data[4:8])
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    place = directory + 2 + 12 * rng.randrange(count)
    field = list(struct.unpack_from(f"{order}HHII", data, place))
    part = rng.randrange(4)
    limit = 2**16 if part < 2 else 2**32
    small = rng.choice((*range(14), 0x0112, 0x8769))
    field[part] = rng.choice((small, *NUMBERS)) % limit
    return data[:place] + struct.pack(f"{order}HHII", *field) + data[place + 12 :]


# What a pickle may be made to do: run code, grow, nest, reach for what is not there.
_OPCODES = (
    *(b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R", b"cbuiltins\neval\n", b"i__main__\nx\n"),
    *(
        b"r\xff\xff\xff\x7f",
        b"j\xff\xff\xff\xff",
        b"(" * 1000,
        b"]" * 1000,
        b"2" * 100,
        b"\x85" * 1000,
    ),
    *(b"0", b"1", b"N", b".", b"R", b"b", b"Q", b"u", b"e", b"t", b"K\xff", b"M\xff\xff"),
    *(b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8, b"X\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f"),
    *(b"\x8e" + b"\xff" * 8, b"X\x04\x00\x00\x00\xf0\x9f\x98\x80", b"G" + b"\x7f\xf8" + bytes(6)),
)


def pickled(data: bytes, rng: random.Random) -> bytes:
    """An instruction left out, doubled, or another put in its place."""
    places = [0]
    with contextlib.suppress(Exception):  # several pickles, and then tensors, may lie in a file
        stream = io.BytesIO(data)
        while True:
            start = stream.tell()
            places += [
                start + place for *_, place in pickletools.genops(stream) if place is not None
            ]
    index = rng.randrange(max(1, len(places) - 1))
    begin, end = places[index], places[min(index + 1, len(places) - 1)]
    other = rng.choice((b"", data[begin:end] * 2, *_OPCODES))
    return data[:begin] + other + data[rng.choice((begin, end)) :]


def zipped(inner: Mutation, data: bytes, rng: random.Random) -> bytes:
    """A member damaged, with a sound checksum; now and then the archive's own fields too."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    stream = io.BytesIO()
    index = rng.randrange(len(members))
    packed = rng.random() < 0.1
    with zipfile.ZipFile(stream, "w") as archive:
        for number, (info, content) in enumerate(members):
            changed = inner(content, rng) if number == index and content else content
            kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            archive.writestr(info.filename, changed, kind)
    return set_zip_field(stream.getvalue(), rng) if rng.random() < 0.3 else stream.getvalue()


def set_zip_field(data: bytes, rng: random.Random) -> bytes:
    """A number in one of the archive's headers."""
    kind = rng.choice((b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"))
    places = [place for place in range(len(data)) if data.startswith(kind, place)]
    begin = rng.choice(places or [0]) + rng.randrange(4, 22)
    return data[:begin] + set_number(data[begin : begin + 24], rng) + data[begin + 24 :]


def safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header's JSON with other numbers, names and text, its length made right."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json_text(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def json_text(data: bytes, rng: random.Random) -> bytes:
    """A JSON document in which one value has another type or size, or is left out."""
    try:
        document = json.loads(data)
    except ValueError:
        return generic(data, rng)
    if isinstance(document, dict | list) and document:
        _change(document, rng)
    return json.dumps(document).encode()


def _change(node: dict | list, rng: random.Random) -> None:
    while True:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        below = node[key]
        text = _nested(below)
        if text is not None and rng.random() < 0.8:
            _change(text, rng)
            node[key] = json.dumps(text)
            return
        if not isinstance(below, dict | list) or not below or rng.random() < 0.2:
            break
        node = below
    others: tuple[Any, ...] = (
        None,
        -1,
        2**63,
        1e300,
        "",
        "a" * 1000,
        [],
        {},
        True,
        [below] * 3,
        "../../x",
        "F16",
    )
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = rng.choice(others)


def _nested(value: object) -> dict | None:
    """The JSON object in a text, as safetensors' metadata hold it."""
    if isinstance(value, str) and value.startswith("{"):
        with contextlib.suppress(ValueError):
            found = json.loads(value)
            return found or None
    return None


def gzipped(inner: Mutation, data: bytes, rng: random.Random) -> bytes:
    """Damaged before it is packed, so that the checksum is sound."""
    return gzip.compress(inner(gzip.decompress(data), rng), 1)


def tarred(inner: Mutation, data: bytes, rng: random.Random) -> bytes:
    """A member damaged, all checksums made right."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if (content := tar.extractfile(member)) is not None:
                files[member.name] = content.read()
    name = rng.choice(list(files))
    return tar_of(files | {name: inner(files[name], rng)})


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar file of files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
