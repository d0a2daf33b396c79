"""Untrusted pickles, read as inert values. Nothing that a pickle names is imported, and nothing is called.

A pickle is a program of opcodes. Those that build Python's own values are followed here. A name becomes a `Name`, and a
call becomes a `Call` that records the name and the arguments; whoever reads the values decides what a recorded call
means. Names outside a fixed list, other opcodes and long programs are refused.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple

__all__ = ["OPCODES", "Call", "Name", "read_pickle"]

OPCODES = 1 << 18
"""Most opcodes that are followed, about 200 bytes of memory each. Published networks take some 50,000."""


class Name(NamedTuple):
    """A class or a function that a pickle names."""

    text: str


class Call:
    """A call that a pickle asks for, which nobody makes.

    of: the dotted name of the class or function.
    state: given to the object afterwards (`__setstate__`); None without.
    items: set in the object afterwards (`object[key] = value`).
    """

    __slots__ = ("args", "items", "of", "state")

    def __init__(self, of: str, args: tuple[Any, ...]):
        self.of, self.args = of, args
        self.state: Any = None
        self.items: dict[str | bytes, Any] = {}


def read_pickle(file: io.BytesIO, names: Collection[str], *, most: int = OPCODES) -> Any:
    """The value of the pickle at the position of `file`, which is left behind the pickle.

    Lists, dictionaries and the arguments of a `Call` may be shared by several parents or hold themselves, so a walk
    through them needs limits of its own. Keys are text or bytes: the hash of nested tuples that share their parts takes
    time exponential in their depth, and the hashes of chosen numbers collide.

    names: dotted names that the pickle may call.
    most: largest number of opcodes.

    Raises:
        ValueError: for any other name, opcode or key, a damaged pickle, or more opcodes.
    """
    reader = Reader(names)
    for count, (opcode, given, _) in enumerate(pickletools.genops(file)):
        if count >= most:
            raise ValueError(f"it has more than {most:,} opcodes")
        if (follow := Reader.followed.get(opcode.name)) is None:
            raise ValueError(f"it has the opcode {opcode.name}, which is not followed")
        try:
            follow(reader, given)
        except LookupError:
            raise ValueError(f"its opcode {opcode.name} lacks something before it") from None
    if len(reader.stack) != 1 or reader.before:
        raise ValueError("it does not end with one value")
    value: Any = reader.pop()
    return value


class Reader:
    """The state of a pickle that is being followed: a stack, the stacks before each mark, and a memo."""

    def __init__(self, names: Collection[str]):
        self.names = names
        self.stack: list[Any] = []
        self.before: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self, _: object) -> None:
        self.before.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """All values since the last mark."""
        values, self.stack = self.stack, self.before.pop()
        return values

    # ---- opcodes: each takes the argument that follows it in the file -------------------------------------

    def nothing(self, _: object) -> None:
        """PROTO, FRAME, STOP."""

    def drop(self, _: object) -> None:
        self.pop()

    def drop_marked(self, _: object) -> None:
        self.marked()

    def constant(self, value: object) -> None:
        self.push(value)

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def tuple_since_mark(self, _: object) -> None:
        self.push(tuple(self.marked()))

    def append(self, _: object) -> None:
        value = self.pop()
        self.extend([value])

    def appends(self, _: object) -> None:
        self.extend(self.marked())

    def extend(self, values: list[Any]) -> None:
        place = self.stack[-1]
        if not isinstance(place, list):
            raise ValueError("it appends to something other than a list")
        place.extend(values)

    def set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self.set_pairs([key], [value])

    def set_items(self, _: object) -> None:
        pairs = self.marked()
        self.set_pairs(pairs[::2], pairs[1::2])

    def set_pairs(self, keys: list[Any], values: list[Any]) -> None:
        place = self.stack[-1]
        if isinstance(place, Call):
            place = place.items
        if not isinstance(place, dict) or len(keys) != len(values):
            raise ValueError("it sets keys of something other than a dictionary")
        require_text(keys)
        place.update(zip(keys, values, strict=True))

    def add_items(self, _: object) -> None:
        values = self.marked()
        place = self.stack[-1]
        if not isinstance(place, set):
            raise ValueError("it adds to something other than a set")
        require_text(values)
        place.update(values)

    def name(self, given: str) -> None:
        self.push(self.allowed(given.replace(" ", ".", 1)))  # pickletools joins the two parts with a space

    def name_on_stack(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("it names something by other than text")
        self.push(self.allowed(f"{module}.{name}"))

    def allowed(self, name: str) -> Name:
        if name not in self.names:
            shown = name[:100].encode("unicode_escape").decode()
            raise ValueError(f"it would call {shown}")
        return Name(name)

    def call(self, _: object) -> None:
        args, of = self.pop(), self.pop()
        if not (isinstance(of, Name) and isinstance(args, tuple)):
            raise ValueError("it calls something other than a function")
        self.push(Call(of.text, args))

    def build(self, _: object) -> None:
        state, made = self.pop(), self.stack[-1]
        if not isinstance(made, Call) or made.state is not None:
            raise ValueError("it sets the state of something other than a new object")
        made.state = state

    def persistent(self, _: object) -> None:
        self.push(Call("persistent", (self.pop(),)))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    followed: ClassVar[Mapping[str, Callable[[Reader, Any], None]]] = {
        **dict.fromkeys(("PROTO", "FRAME", "STOP"), nothing),
        **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), constant),
        **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"), constant),
        **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), constant),
        "BYTEARRAY8": lambda self, value: self.push(bytes(value)),
        "NONE": constant,
        "NEWTRUE": lambda self, _: self.push(True),
        "NEWFALSE": lambda self, _: self.push(False),
        "EMPTY_LIST": lambda self, _: self.push([]),
        "EMPTY_DICT": lambda self, _: self.push({}),
        "EMPTY_SET": lambda self, _: self.push(set()),
        "EMPTY_TUPLE": lambda self, _: self.push(()),
        "TUPLE1": lambda self, _: self.tuple_of(1),
        "TUPLE2": lambda self, _: self.tuple_of(2),
        "TUPLE3": lambda self, _: self.tuple_of(3),
        "TUPLE": tuple_since_mark,
        "MARK": mark,
        "POP": drop,
        "POP_MARK": drop_marked,
        "APPEND": append,
        "APPENDS": appends,
        "SETITEM": set_item,
        "SETITEMS": set_items,
        "ADDITEMS": add_items,
        "GLOBAL": name,
        "STACK_GLOBAL": name_on_stack,
        "REDUCE": call,
        "NEWOBJ": call,
        "BUILD": build,
        "BINPERSID": persistent,
        "BINPUT": put,
        "LONG_BINPUT": put,
        "MEMOIZE": memoize,
        "BINGET": get,
        "LONG_BINGET": get,
    }
    """Opcode -> what it does. The old text forms of numbers, classes made by name and extensions are left out."""


def require_text(keys: list[Any]) -> None:
    if not all(isinstance(key, str | bytes) for key in keys):
        raise ValueError("its keys are not text")
