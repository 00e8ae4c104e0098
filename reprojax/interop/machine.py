"""Reads pickles into plain values and runs none of their code.

Python's own unpickler imports every name and calls it. This one holds no callable that the stream
could reach: a name stays a string, an object becomes a record of its class's name and its contents,
and the caller decides which few functions mean something. Opcodes that would do more (the extension
registry, text persistent ids, out-of-band buffers, old-style instances) are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_OPCODES = 1_000_000  # in one pickle: 20 times a published network's; bounds time and memory
MAX_BITS = 128  # of an integer: Python takes quadratic time to print a long one
_PLAIN = (str, bytes, int, float, bool, type(None))


class RefusedError(Exception):
    """The stream asks for something that reading weights does not need, which the text names."""


@dataclass(frozen=True)
class Name:
    """The name of a global in the stream ("torch.nn.modules.linear.Linear"); never imported."""

    text: str


@dataclass(eq=False)
class Inert:
    """A record of an object of a foreign class: the contents without the class.

    Args:
        kind: The name of the class.
        args: The arguments that the object was constructed with.
        state: The object's attributes as the stream states them, or None.
        items: The items of the object if its class is a dict.
        values: The values of the object if its class is a list.
    """

    kind: str
    args: tuple = field(default=(), repr=False)
    state: Any = field(default=None, repr=False)
    items: dict = field(default_factory=dict, repr=False)
    values: list = field(default_factory=list, repr=False)


class Machine:
    """A reader of one pickle after another from a stream.

    Args:
        find: A function that returns a `Name` for (module, name), or raises RefusedError.
        call: A function that returns the value of a call, from the name's text and the tuple of
            arguments.
        persistent: A function that returns the value of a binary persistent id.
        limit: The largest number of opcodes in one pickle, `MAX_OPCODES` by default.
    """

    def __init__(
        self,
        find: Callable[[str, str], Name],
        call: Callable[[str, tuple], Any],
        persistent: Callable[[Any], Any],
        limit: int | None = None,
    ):
        self.find, self.call, self.persistent = find, call, persistent
        self.limit = MAX_OPCODES if limit is None else limit
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def read(self, stream: BinaryIO) -> Any:
        """Reads the pickle that starts at the stream's position and returns its value.

        Raises:
            RefusedError: The pickle asks for something else than plain values.
            ValueError: This is not a pickle, or not a whole one.
        """
        self.stack, self.marks, self.memo = [], [], {}
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
                if count > self.limit:
                    raise RefusedError(f"more than {self.limit:,} steps")
                handler = _HANDLERS.get(opcode.name)
                if handler is None:
                    raise RefusedError(f"the opcode {opcode.name}")
                handler(self, arg)
            return self.stack.pop()
        except (IndexError, KeyError, OverflowError) as error:
            raise ValueError("it is damaged") from error

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def push_integer(self, value: int) -> None:
        """Puts an integer on the stack, or raises RefusedError if it is too long."""
        if value.bit_length() > MAX_BITS:
            raise RefusedError(f"an integer of {value.bit_length()} bits")
        self.push(value)

    def pop_mark(self) -> list[Any]:
        """Removes the values above the last mark from the stack and returns them."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def add_items(self, pairs: list[Any]) -> None:
        """Sets keys of the dict (or record) on top of the stack."""
        top = self.stack[-1]
        target = top.items if isinstance(top, Inert) else _of_type(top, dict)
        target.update(_pairs(pairs))

    def add_values(self, values: list[Any]) -> None:
        """Appends to the list (or record) on top of the stack."""
        top = self.stack[-1]
        target = top.values if isinstance(top, Inert) else _of_type(top, list)
        target.extend(values)

    def reduce(self, _: Any) -> None:
        """Replaces a name and a tuple of arguments on the stack by the value of the call."""
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name):
            raise RefusedError("a call of something that is not a name")
        self.push(self.call(function.text, _of_type(args, tuple)))

    def build(self, _: Any) -> None:
        """Stores the attributes of a record, once; refuses to set those of anything else."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Inert) or target.state is not None:
            raise RefusedError(f"attributes set on {_a(target)}")
        target.state = state

    def stack_global(self, _: Any) -> None:
        """Replaces a module's name and a name in it on the stack by a `Name`."""
        name, module = self.stack.pop(), self.stack.pop()
        self.push(self.find(_of_type(module, str), _of_type(name, str)))

    def add_members(self, _: Any) -> None:
        """Adds the values above the last mark to the set below it."""
        members = self.pop_mark()
        _of_type(self.stack[-1], set).update(map(_plain, members))

    def drop(self, _: Any) -> None:
        """Removes the top of the stack."""
        self.stack.pop()

    def drop_mark(self, _: Any) -> None:
        """Removes the values above the last mark from the stack."""
        self.pop_mark()


def _a(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise RefusedError(f"{_a(value)} where a {kind.__name__} belongs")
    return value


def _plain(value: Any) -> Any:
    """Returns ``value`` if it may be a key, which a tuple may not.

    Hashing a deeply nested tuple overflows the C stack.
    """
    if type(value) not in _PLAIN:
        raise RefusedError(f"{_a(value)} as a key")
    return value


def _pairs(values: list[Any]) -> dict:
    return {_plain(k): v for k, v in zip(values[::2], values[1::2], strict=True)}


def _take(machine: Machine, count: int) -> list[Any]:
    if len(machine.stack) < count:
        raise IndexError
    items = machine.stack[-count:]
    del machine.stack[-count:]
    return items


def _remember(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


_VALUES = (
    *("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)

_HANDLERS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(_VALUES, Machine.push),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4"), Machine.push_integer),
    "PROTO": lambda m, arg: None,
    "FRAME": lambda m, arg: None,
    "STOP": lambda m, arg: None,
    "NONE": lambda m, arg: m.push(None),
    "NEWTRUE": lambda m, arg: m.push(True),
    "NEWFALSE": lambda m, arg: m.push(False),
    "MARK": lambda m, arg: m.marks.append(len(m.stack)),
    "POP": Machine.drop,
    "POP_MARK": Machine.drop_mark,
    "DUP": lambda m, arg: m.push(m.stack[-1]),
    "EMPTY_TUPLE": lambda m, arg: m.push(()),
    "TUPLE1": lambda m, arg: m.push(tuple(_take(m, 1))),
    "TUPLE2": lambda m, arg: m.push(tuple(_take(m, 2))),
    "TUPLE3": lambda m, arg: m.push(tuple(_take(m, 3))),
    "TUPLE": lambda m, arg: m.push(tuple(m.pop_mark())),
    "EMPTY_LIST": lambda m, arg: m.push([]),
    "LIST": lambda m, arg: m.push(m.pop_mark()),
    "APPEND": lambda m, arg: m.add_values(_take(m, 1)),
    "APPENDS": lambda m, arg: m.add_values(m.pop_mark()),
    "EMPTY_DICT": lambda m, arg: m.push({}),
    "DICT": lambda m, arg: m.push(_pairs(m.pop_mark())),
    "SETITEM": lambda m, arg: m.add_items(_take(m, 2)),
    "SETITEMS": lambda m, arg: m.add_items(m.pop_mark()),
    "EMPTY_SET": lambda m, arg: m.push(set()),
    "ADDITEMS": Machine.add_members,
    "FROZENSET": lambda m, arg: m.push(frozenset(map(_plain, m.pop_mark()))),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _remember),
    "MEMOIZE": lambda m, arg: _remember(m, len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    "GLOBAL": lambda m, arg: m.push(m.find(*arg.rsplit(" ", 1))),
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.reduce,
    "NEWOBJ": Machine.reduce,  # the same for a record: a class and its arguments
    "BUILD": Machine.build,
    "BINPERSID": lambda m, arg: m.push(m.persistent(m.stack.pop())),
}
