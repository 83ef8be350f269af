"""Following the opcodes of a pickle without doing what they say.

Instead of importing and calling, the stack holds descriptions of what would be there.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Callable, Iterable
from typing import Any

MAX_OPCODES = 20_000

# How many members of a container are held: more is never shown.
_MOST_HELD = 32
MORE = "…"


class Global:
    """A name of a module."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    @property
    def dotted(self) -> str:
        """Module and name; of builtins the name alone."""
        return self.name if self.module == "builtins" else f"{self.module}.{self.name}"


class Made:
    """What a call or a constructor would return."""

    __slots__ = ("args", "maker", "state")

    def __init__(self, maker: Any, args: Any) -> None:
        self.maker = maker
        self.args = args
        self.state: Any = None


class Items:
    """A list, tuple, set or frozenset; only the first items are held, and how many there are."""

    __slots__ = ("count", "first", "kind")

    def __init__(self, kind: str, items: Iterable[Any] = ()) -> None:
        self.kind = kind
        self.first: list[Any] = []
        self.count = 0
        self.extend(items)

    def extend(self, items: Iterable[Any]) -> None:
        """Count the items, and hold the first ones."""
        for item in items:
            self.count += 1
            if self.count <= _MOST_HELD:
                self.first.append(item)


class Pairs:
    """A dictionary."""

    __slots__ = ("count", "first")

    def __init__(self, items: list[Any] | None = None) -> None:
        self.first: list[tuple[Any, Any]] = []
        self.count = 0
        self.extend(items or [])

    def extend(self, items: list[Any]) -> None:
        """Take keys and values in turn."""
        for key, value in zip(items[::2], items[1::2], strict=False):
            self.count += 1
            if self.count <= _MOST_HELD:
                self.first.append((key, value))


class Unknown:
    """A value that is not in the pickle itself."""


MARK = object()


class Reading:
    """The stack and the memo while a pickle is followed."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0

    def follow(self, data: bytes) -> list[Any]:
        """Return the stack at the end, or as far as the bytes could be followed."""
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
                if opcode.name == "STOP" or count > MAX_OPCODES:
                    break
                self.step(opcode.name, arg)
        except (ValueError, IndexError, KeyError, AttributeError, TypeError):
            pass  # what was read before still says which function it is
        return self.stack

    def step(self, name: str, arg: Any) -> None:
        """Do to the stack what one opcode does."""
        stack = self.stack
        if name in _VALUES:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PYTHON2_STRINGS:
            stack.append(_python2_string(arg))
        elif name in _CONTAINERS:
            stack.append(_CONTAINERS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[arg])
        elif name == "PROTO":
            self.protocol = arg
        elif name == "GLOBAL":
            stack.append(self.named(arg))
        elif name == "INST":
            self.make(self.named(arg), Items("tuple", self.since_mark()))
        elif name in _STEPS:
            _STEPS[name](self)

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        stack = self.stack
        place = len(stack) - 1
        while stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def pop(self, count: int) -> list[Any]:
        """Take the last values."""
        if len(self.stack) < count:
            raise ValueError("stack too short")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def tuple_of(self, items: list[Any]) -> None:
        """Put a tuple of the items."""
        self.stack.append(Items("tuple", items))

    def extend(self, items: list[Any]) -> None:
        """Give items, or keys and values, to the container that lies last."""
        top = self.stack[-1]
        if isinstance(top, (Items, Pairs)):
            top.extend(items)
        elif isinstance(top, Made):
            top.state = MORE

    def make(self, maker: Any, args: Any) -> None:
        """Put what a call would return."""
        self.stack.append(Made(maker, args))

    def make_of_marked(self) -> None:
        """Put an instance of a class that lies above the mark, before its arguments."""
        maker, *args = self.since_mark()
        self.make(maker, Items("tuple", args))

    def named(self, text: str) -> Global:
        """Return a name as Python 3 has it; earlier protocols write Python 2's."""
        module, _, name = text.partition(" ")
        if self.protocol < 3:
            renamed = _compat_pickle.NAME_MAPPING.get((module, name))
            module, name = renamed or (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        return Global(module, name)

    def global_on_stack(self) -> None:
        """Put the name whose parts are on the stack."""
        module, name = self.pop(2)
        self.stack.append(Global(str(module), str(name)))

    def new_with_keywords(self) -> None:
        """Put an instance; its keyword arguments are not shown."""
        maker, args, _ = self.pop(3)
        self.make(maker, args)

    def build(self) -> None:
        """Give a state to the last value."""
        (state,) = self.pop(1)
        top = self.stack[-1]
        if isinstance(top, Made):
            top.state = state


_VALUES = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_PYTHON2_STRINGS = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_CONSTANTS: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "MARK": MARK,
}
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": lambda: Items("list"),
    "EMPTY_TUPLE": lambda: Items("tuple"),
    "EMPTY_SET": lambda: Items("set"),
    "EMPTY_DICT": Pairs,
    "PERSID": Unknown,
    "EXT1": Unknown,
    "EXT2": Unknown,
    "EXT4": Unknown,
    "NEXT_BUFFER": Unknown,
}
_STEPS: dict[str, Callable[[Reading], object]] = {
    "POP": lambda reading: reading.pop(1),
    "POP_MARK": lambda reading: reading.since_mark(),
    "DUP": lambda reading: reading.stack.append(reading.stack[-1]),
    "BINPERSID": lambda reading: reading.make(Unknown(), reading.pop(1)),
    "LIST": lambda reading: reading.stack.append(Items("list", reading.since_mark())),
    "TUPLE": lambda reading: reading.tuple_of(reading.since_mark()),
    "TUPLE1": lambda reading: reading.tuple_of(reading.pop(1)),
    "TUPLE2": lambda reading: reading.tuple_of(reading.pop(2)),
    "TUPLE3": lambda reading: reading.tuple_of(reading.pop(3)),
    "FROZENSET": lambda reading: reading.stack.append(Items("frozenset", reading.since_mark())),
    "DICT": lambda reading: reading.stack.append(Pairs(reading.since_mark())),
    "APPEND": lambda reading: reading.extend(reading.pop(1)),
    "APPENDS": lambda reading: reading.extend(reading.since_mark()),
    "ADDITEMS": lambda reading: reading.extend(reading.since_mark()),
    "SETITEM": lambda reading: reading.extend(reading.pop(2)),
    "SETITEMS": lambda reading: reading.extend(reading.since_mark()),
    "STACK_GLOBAL": lambda reading: reading.global_on_stack(),
    "REDUCE": lambda reading: reading.make(*reading.pop(2)),
    "NEWOBJ": lambda reading: reading.make(*reading.pop(2)),
    "NEWOBJ_EX": lambda reading: reading.new_with_keywords(),
    "OBJ": lambda reading: reading.make_of_marked(),
    "BUILD": lambda reading: reading.build(),
}


def _python2_string(text: str) -> str | bytes:
    raw = text.encode("latin-1")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
