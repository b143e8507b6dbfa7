"""A pickle machine that executes nothing, for files pickled by others.

Why not `pickle.Unpickler` with a strict `find_class`: that runs no foreign code, but a hostile file
can still kill it. Measured with CPython 3.11: a tuple nested two million deep as a dictionary key
overflows the C stack (segmentation fault), nine bytes make it reserve 4 GB (LONG_BINPUT), and 158
bytes keep it busy for 18 s (a key of shared tuples, hashed 2^30 times). Therefore `pickletools`
only decodes the instructions, and this machine interprets those that dictionaries of lists,
numbers, text and arrays need. Names are looked up in a fixed table, nothing is imported, and a file
may only call our own functions, which make small objects and check their arguments. What is decoded
is counted before: a text is kept in four times its bytes if one of its characters is an emoji.

Instruction set: CPython's `pickletools`, protocols 2 to 5.
"""

import abc
import io
import itertools
import pickletools
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np

# What pickletools and the machine raise on malformed data.
DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AssertionError, RuntimeError)


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_CUT_OFF = "pickle exhausted before seeing STOP"
# The bytes of the length before an argument.
_LENGTHS = {
    **dict.fromkeys(("SHORT_BINUNICODE", "SHORT_BINSTRING", "SHORT_BINBYTES", "LONG1"), 1),
    **dict.fromkeys(("BINUNICODE", "BINSTRING", "BINBYTES"), 4),
    **dict.fromkeys(("BINBYTES8", "BYTEARRAY8"), 8),
}


def shown(text: str, length: int = 100) -> str:
    """Return `text` from an untrusted file on one line, cut to `length` characters."""
    escaped = ascii(text[:length])[1:-1]
    return escaped if len(escaped) <= length else escaped[: length - 3] + "..."


def kind(value: Any) -> str:
    return type(value).__name__


class PickleMachine(abc.ABC):
    """A stack, the stacks below the open marks, and the memo.

    A subclass defines what its files may hold: `names`, `instructions`, `max_instructions`, and the
    abstract methods.
    """

    names: ClassVar[Mapping[str, Any]]
    """Everything a file may name, "module name" as pickletools writes it."""

    instructions: ClassVar[Mapping[str, Callable[[Any, Any], None]]]
    max_instructions: ClassVar[int]
    max_bytes: ClassVar[int]
    """Of all texts, bytes and numbers, decoded."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.decoded = 0  # bytes

    @abc.abstractmethod
    def refuse(self, what: str) -> NoReturn:
        """Raise the error for a file that requires what no such file needs."""

    @abc.abstractmethod
    def key(self, value: Any) -> Hashable:
        """Return the dictionary key for `value`, safe to hash; raises TypeError if it is none."""

    @abc.abstractmethod
    def build(self, target: Any, state: Any) -> None:
        """Set the state of an object; raises TypeError if such files have no such object."""

    def run(self, stream: bytes | io.BytesIO) -> Any:
        """Interpret one pickle and return the object.

        Args:
            stream: The pickle, or a stream at its first byte, which is left after its last one.

        Raises:
            One of `DAMAGE`: if the pickle is truncated or malformed.
            What `refuse` raises: if it requires anything that is not in the tables.
        """
        stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
        for count in itertools.count():
            code = stream.read(1)
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"opcode {code!r} unknown" if code else _CUT_OFF)
            if opcode.name == "STOP":
                break
            if opcode.name not in self.instructions:
                self.refuse(f"uses the pickle instruction {opcode.name}")
            if count >= self.max_instructions:
                self.refuse(f"has more than {self.max_instructions:,} pickle instructions")
            argument = None if opcode.arg is None else self.argument(opcode, stream)
            self.instructions[opcode.name](self, argument)
        (value,) = self.stack
        return value

    def argument(self, opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> Any:
        """Decodes what stands behind an instruction, unless it takes more than `max_bytes`."""
        assert opcode.arg is not None
        begin = stream.tell()
        self.decoded += _size(opcode.name, stream)
        if self.decoded > self.max_bytes:
            self.refuse(f"decodes to more than {self.max_bytes:,} bytes of text and numbers")
        stream.seek(begin)
        return opcode.arg.reader(stream)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise TypeError("items without a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            name = self.key(key)  # hashing nested values of a file could take forever
            if name in target:
                raise ValueError(f"two entries are called {shown(str(name))}")
            target[name] = value

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("items without a list")
        self.stack[-1].extend(items)

    def look_up(self, name: str) -> None:
        if name not in self.names:
            self.refuse(f"asks for '{shown(name.replace(' ', '.', 1))}'")
        self.push(self.names[name])

    def look_up_stacked(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or type(name) is not str:
            raise TypeError("a name that is no text")
        self.look_up(f"{module} {name}")

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # Every function on the stack is one of ours, from `names`.
        if not isinstance(function, types.FunctionType) or type(arguments) is not tuple:
            raise TypeError(f"a call of a {kind(function)}")
        self.push(function(*arguments))


def _size(name: str, stream: io.BytesIO) -> int:
    """The bytes that an argument takes, decoded; of what cannot be decoded, any number."""
    if name == "GLOBAL":
        return 4 * len(stream.readline() + stream.readline())
    length = _LENGTHS.get(name, 0)
    if not length:
        return 0
    count = int.from_bytes(stream.read(length), "little")
    if not name.endswith("UNICODE"):
        return count
    # Python keeps a text with a character beyond Latin-1 in up to four bytes a character. In UTF-8
    # these characters, and no others, have a byte from 0xC4 on.
    text = np.frombuffer(stream.read(count), np.uint8)
    return len(text) * (4 if text.max(initial=0) >= 0xC4 else 1)


def pushing(*names: str) -> dict[str, Callable[[PickleMachine, Any], None]]:
    """Return the instructions that push their argument."""
    return dict.fromkeys(names, PickleMachine.push)


# For dictionaries of lists, numbers and text.
INSTRUCTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    **pushing("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "BINPUT": PickleMachine.memoize,
    "LONG_BINPUT": PickleMachine.memoize,
    "MEMOIZE": lambda machine, _: machine.memoize(len(machine.memo)),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": PickleMachine.look_up,
    "STACK_GLOBAL": lambda machine, _: machine.look_up_stacked(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(target=machine.stack[-2], state=machine.stack.pop()),
}
