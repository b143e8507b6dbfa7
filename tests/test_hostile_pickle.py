"""Pickles that try to run code, make no sense, or are built to kill the reader: nothing happens."""

import importlib
import os
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_files import FORMATS, Call, error, in_legacy, in_zip, saved


def hostile(canary: Path) -> dict[str, Any]:
    """Objects that run `touch canary` when pickle loads them, by the name they ask for first."""
    command = f"touch {canary}"
    module = Call(importlib.import_module, "os")
    system = Call(getattr, module, "system")
    return {
        "posix.system": Call(os.system, command),
        "__builtin__.eval": Call(eval, f"__import__('os').system({command!r})"),
        "torch._utils._import_dotted_name": Call(torch._utils._import_dotted_name, "os.system"),
        "__builtin__.getattr": Call(getattr, module, "system"),
        "__builtin__.compile": Call(compile, command, "canary.py", "exec"),
        "torch.serialization.load": Call(torch.load, str(canary)),
        "functools.partial": Call(importlib.import_module("functools").partial, system, command),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b""),
    }


@FORMATS
@pytest.mark.parametrize("name", hostile(Path("canary")))
def test_pickles_that_run_code_are_refused_and_nothing_runs(tmp_path, is_zip, name):
    canary = tmp_path / "canary"
    attack = hostile(canary)[name]
    for value in (attack, {"a": attack}, {"a": torch.ones(2), "b": [(attack,)]}):
        message = error(saved(value, is_zip=is_zip))
        assert f"asks for '{name}', which no state dict needs; nothing was run" in message
    assert not canary.exists()


def test_the_attack_is_real(tmp_path):
    pickle.loads(pickle.dumps(hostile(tmp_path / "canary")["posix.system"]))
    assert (tmp_path / "canary").exists()


def text(value: str) -> bytes:
    """The pickle instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize("container", [in_legacy, in_zip])
def test_every_other_way_to_run_code_is_refused(tmp_path, container):
    canary = tmp_path / "canary"
    command = text(f"touch {canary}")
    attacks = [
        ("asks for 'posix.system'", b"cposix\nsystem\n(" + command + b"tR."),
        ("asks for 'posix.system'", text("posix") + text("system") + b"\x93" + command + b"\x85R."),
        ("pickle instruction INST", b"(" + command + b"iposix\nsystem\n."),
        ("pickle instruction OBJ", b"(" + command + b"o."),
        ("pickle instruction EXT1", b"\x82\x01" + command + b"\x85R."),
        ("pickle instruction NEWOBJ", b"ccollections\nOrderedDict\n)\x81."),
        ("pickle instruction PERSID", b"Pcommand\n."),
        ("asks for 'collections.OrderedDict.fromkeys'", b"ccollections\nOrderedDict.fromkeys\n."),
        ("asks for 'torch._utils.os.system'", b"ctorch._utils\nos.system\n(" + command + b"tR."),
    ]
    for reason, code in attacks:
        message = error(container(b"\x80\x04" + code))
        assert reason in message and "nothing was run" in message
    assert not canary.exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        # Called: a dtype, a string, a tensor's rebuilder with too few or odd arguments.
        (b"ctorch\nFloatStorage\n)R.", "a call of a Float32DType"),
        (b"X\x01\x00\x00\x00a)R.", "a call of a str"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "missing 6 required positional arguments"),
        (b"ctorch._utils\n_rebuild_parameter\nNNN\x87R.", "a parameter without a tensor"),
        (b"ccollections\nOrderedDict\n(]tR.", "takes 0 positional arguments but 1 was given"),
        (b"ccollections\nOrderedDict\n}R.", "a call of a function"),
        # States, items and marks where none belong.
        (b"}Nb.", "a state for a dict"),
        (b"]}b.", "a state for a list"),
        (b"N(NNu.", "items without a dictionary"),
        (b"}(Nu.", "items without a dictionary"),
        (b"}(e.", "items without a list"),
        (b"})Ns.", "a dictionary key is a tuple"),
        (b"t.", "pop from empty list"),
        (b"(0.", "pickle instruction POP"),
        (b"h\x07.", "truncated or damaged (7)"),
        (b"q\x00.", "list index out of range"),
        (b".", "not enough values to unpack"),
        (b"NN.", "too many values to unpack"),
        (b"NQ.", "truncated or damaged"),
        (b"\x8c\x01a\x93.", "truncated or damaged"),
        (b"NN\x93.", "a name that is no text"),
        (b"\xff", "opcode b'\\\\xff' unknown"),
        (b"X\xff\xff\xff\x7fab", "expected 2147483647 bytes in a unicodestring4"),
        (b"\x8d" + b"\xff" * 8, "pickle instruction BINUNICODE8"),
        (b"N", "pickle exhausted before seeing STOP"),
    ],
)
def test_nonsense_is_refused(code, reason):
    assert reason in error(in_zip(b"\x80\x02" + code))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        # The first three kill or hang pickle.Unpickler, whatever its find_class forbids.
        (b"})" + b"\x85" * 190_000 + b"Ns.", "a dictionary key is a tuple"),
        (b"}" + b"K\x01" + b"q\x01h\x01\x86" * 60 + b"Ns.", "a dictionary key is a tuple"),
        (b"Nr\xff\xff\xff\xff.", "holds a NoneType"),
        (b"]" * 200_001 + b".", "more than 200,000 pickle instructions"),
        (b"(" * 90_000 + b"t" * 90_000 + b".", "holds a tuple"),
        # Python would keep 20 MB: a text in four bytes a character.
        (
            b"X" + struct.pack("<I", 5_000_000) + "😀".encode() + b"a" * 4_999_996 + b".",
            "decodes to more than 16,777,216 bytes of text and numbers, which no state dict needs",
        ),
    ],
    ids=["deep", "shared", "memo", "many", "marks", "text"],
)
def test_bombs_are_defused(code, reason):
    begin = time.perf_counter()
    assert reason in error(in_zip(b"\x80\x02" + code))
    assert time.perf_counter() - begin < 10.0
