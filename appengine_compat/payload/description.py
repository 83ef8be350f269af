"""What a payload would call, read without executing anything of it.

The opcodes of the pickle are followed by an interpreter whose objects are only descriptions:
nothing is imported, nothing called. Whatever the bytes are, it ends soon, with little text, and
raises nothing, so that it may be used on payloads of unknown origin.
"""

from __future__ import annotations

import datetime
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_OPCODES = 20_000
MAX_TEXT_CHARACTERS = 500

_MAX_DEPTH = 4
_MAX_ITEMS = 8
_MAX_STRING = 60
_MORE = "…"


@dataclass(frozen=True, slots=True)
class Description:
    """A call: what would be called, and the arguments as source code would show them."""

    function: str
    """Dotted name; a method's is that of its class and its own."""
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return _cut(f"{self.function}({', '.join(self.arguments)})", MAX_TEXT_CHARACTERS)


def describe(data: bytes) -> Description | None:
    """Return what a payload would call.

    Args:
        data: the payload: a pickle of any protocol, of Python 2 or 3, in base64 or not.

    Returns:
        The call, with ``…`` where something is left out; None when it cannot be read.
    """
    from appengine_compat.payload import pickles

    try:
        return _described(_Reading().follow(pickles.unwrapped(data)))
    except Exception:  # the bytes are anyone's; that they cannot be read is the answer
        return None


class _Global:
    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = "builtins" if module == "__builtin__" else module
        self.name = name

    @property
    def dotted(self) -> str:
        return self.name if self.module == "builtins" else f"{self.module}.{self.name}"


class _Made:
    """What a call or a constructor would return."""

    __slots__ = ("args", "maker", "state")

    def __init__(self, maker: Any, args: Any) -> None:
        self.maker = maker
        self.args = args
        self.state: Any = None


class _Items:
    """A list, tuple, set or frozenset; only the first items are held, and how many there are."""

    __slots__ = ("count", "first", "kind")

    def __init__(self, kind: str, items: Iterable[Any] = ()) -> None:
        self.kind = kind
        self.first: list[Any] = []
        self.count = 0
        self.extend(items)

    def extend(self, items: Iterable[Any]) -> None:
        for item in items:
            self.count += 1
            # A call's arguments are wanted whole for bound methods; more is never shown.
            if self.count <= 4 * _MAX_ITEMS:
                self.first.append(item)


class _Pairs:
    """A dictionary."""

    __slots__ = ("count", "first")

    def __init__(self, items: list[Any] | None = None) -> None:
        self.first: list[tuple[Any, Any]] = []
        self.count = 0
        self.extend(items or [])

    def extend(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=False):
            self.count += 1
            if self.count <= 4 * _MAX_ITEMS:
                self.first.append((key, value))


class _Unknown:
    """A value that is not in the pickle itself."""


_MARK = object()


class _Reading:
    """The stack and the memo while a pickle is followed."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

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
        elif name in _STEPS:
            _STEPS[name](self, arg)

    def since_mark(self) -> list[Any]:
        stack = self.stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("stack too short")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def tuple_of(self, items: list[Any]) -> None:
        self.stack.append(_Items("tuple", items))

    def extend(self, items: list[Any]) -> None:
        top = self.stack[-1]
        if isinstance(top, (_Items, _Pairs)):
            top.extend(items)
        elif isinstance(top, _Made):
            top.state = _MORE

    def make(self, maker: Any, args: Any) -> None:
        self.stack.append(_Made(maker, args))

    def make_of_marked(self) -> None:
        maker, *args = self.since_mark()
        self.make(maker, _Items("tuple", args))

    def named(self, text: str) -> _Global:
        module, _, name = text.partition(" ")
        return _Global(module, name)

    def global_on_stack(self) -> None:
        module, name = self.pop(2)
        self.stack.append(_Global(str(module), str(name)))

    def new_with_keywords(self) -> None:
        maker, args, _ = self.pop(3)
        self.make(maker, args)

    def build(self) -> None:
        (state,) = self.pop(1)
        top = self.stack[-1]
        if isinstance(top, _Made):
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
    "MARK": _MARK,
}
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": lambda: _Items("list"),
    "EMPTY_TUPLE": lambda: _Items("tuple"),
    "EMPTY_SET": lambda: _Items("set"),
    "EMPTY_DICT": _Pairs,
    "PERSID": _Unknown,
    "EXT1": _Unknown,
    "EXT2": _Unknown,
    "EXT4": _Unknown,
    "NEXT_BUFFER": _Unknown,
}
_STEPS: dict[str, Callable[[_Reading, Any], object]] = {
    "POP": lambda reading, arg: reading.pop(1),
    "POP_MARK": lambda reading, arg: reading.since_mark(),
    "DUP": lambda reading, arg: reading.stack.append(reading.stack[-1]),
    "BINPERSID": lambda reading, arg: reading.make(_Unknown(), reading.pop(1)),
    "LIST": lambda reading, arg: reading.stack.append(_Items("list", reading.since_mark())),
    "TUPLE": lambda reading, arg: reading.tuple_of(reading.since_mark()),
    "TUPLE1": lambda reading, arg: reading.tuple_of(reading.pop(1)),
    "TUPLE2": lambda reading, arg: reading.tuple_of(reading.pop(2)),
    "TUPLE3": lambda reading, arg: reading.tuple_of(reading.pop(3)),
    "FROZENSET": lambda reading, arg: reading.stack.append(
        _Items("frozenset", reading.since_mark())
    ),
    "DICT": lambda reading, arg: reading.stack.append(_Pairs(reading.since_mark())),
    "APPEND": lambda reading, arg: reading.extend(reading.pop(1)),
    "APPENDS": lambda reading, arg: reading.extend(reading.since_mark()),
    "ADDITEMS": lambda reading, arg: reading.extend(reading.since_mark()),
    "SETITEM": lambda reading, arg: reading.extend(reading.pop(2)),
    "SETITEMS": lambda reading, arg: reading.extend(reading.since_mark()),
    "GLOBAL": lambda reading, arg: reading.stack.append(reading.named(arg)),
    "STACK_GLOBAL": lambda reading, arg: reading.global_on_stack(),
    "REDUCE": lambda reading, arg: reading.make(*reading.pop(2)),
    "NEWOBJ": lambda reading, arg: reading.make(*reading.pop(2)),
    "NEWOBJ_EX": lambda reading, arg: reading.new_with_keywords(),
    "INST": lambda reading, arg: reading.make(
        reading.named(arg), _Items("tuple", reading.since_mark())
    ),
    "OBJ": lambda reading, arg: reading.make_of_marked(),
    "BUILD": lambda reading, arg: reading.build(),
}


def _python2_string(text: str) -> str | bytes:
    raw = text.encode("latin-1")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _described(stack: list[Any]) -> Description | None:
    if len(stack) == 1 and isinstance(stack[0], _Items) and stack[0].count == 3:
        function, args, kwargs = stack[0].first
        if not isinstance(args, _Items) or not isinstance(kwargs, _Pairs):
            return None
        positional, cut = list(args.first), args.count > len(args.first)
        named, more = kwargs.first, kwargs.count > len(kwargs.first)
    else:
        # The bytes ended, or were too many: the function is what was read first.
        rest = [value for value in stack if value is not _MARK]
        if not rest:
            return None
        function, positional, cut = rest[0], rest[1:3], True
        named, more = [], False

    if isinstance(function, _Global) and function.name == "invoke_member" and len(positional) > 1:
        owner, member, *positional = positional
        name = f"{_kind(owner)}.{_cut(str(member), _MAX_STRING)}"
    else:
        found = _function_name(function)
        if found is None:
            return None
        name = found
        if cut and not (isinstance(stack[0], _Items) and len(stack) == 1):
            positional = []
    if isinstance(function, _Made) and _is_named(function.maker, "functools", "partial"):
        earlier, earlier_named = _partial_arguments(function)
        positional, named = earlier + positional, earlier_named + named

    shown = [_text(value) for value in positional[:_MAX_ITEMS]]
    shown += [
        f"{_cut(str(_plain(key)), _MAX_STRING)}={_text(value)}" for key, value in named[:_MAX_ITEMS]
    ]
    if cut or more or len(positional) > _MAX_ITEMS or len(named) > _MAX_ITEMS:
        shown.append(_MORE)
    return Description(_cut(name, MAX_TEXT_CHARACTERS), tuple(shown))


def _function_name(function: Any) -> str | None:
    if isinstance(function, _Global):
        return function.dotted
    if not isinstance(function, _Made):
        return None
    if _is_named(function.maker, "functools", "partial"):
        return _function_name(_first(function.args))
    text = _text(function)
    return text if text else None


def _partial_arguments(made: _Made) -> tuple[list[Any], list[tuple[Any, Any]]]:
    state = made.state
    if isinstance(state, _Items) and len(state.first) >= 3:
        args, kwargs = state.first[1:3]
        return (
            list(args.first) if isinstance(args, _Items) else [],
            list(kwargs.first) if isinstance(kwargs, _Pairs) else [],
        )
    return [], []


def _kind(value: Any) -> str:
    """Return the name of the class that a bound method's object has."""
    if isinstance(value, _Global):
        return value.dotted
    if isinstance(value, _Made):
        if _is_named(value.maker, "copyreg", "_reconstructor"):
            return _kind(_first(value.args))
        if _is_named(value.maker, "builtins", "getattr"):
            return _text(value)
        return _kind(value.maker)
    if isinstance(value, _Items):
        return value.kind
    if isinstance(value, _Pairs):
        return "dict"
    return type(_plain(value)).__name__


def _is_named(value: Any, module: str, name: str) -> bool:
    if not isinstance(value, _Global) or value.name != name:
        return False
    return value.module.replace("copy_reg", "copyreg") == module


def _first(args: Any) -> Any:
    return args.first[0] if isinstance(args, _Items) and args.first else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, int, float, bytearray)) else None


def _text(value: Any, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        return _MORE
    if isinstance(value, _Global):
        return _cut(value.dotted, 2 * _MAX_STRING)
    if isinstance(value, _Made):
        return _cut(_made_text(value, depth), 4 * _MAX_STRING)
    if isinstance(value, _Items):
        return _items_text(value, depth)
    if isinstance(value, _Pairs):
        inner = [
            f"{_text(key, depth + 1)}: {_text(item, depth + 1)}"
            for key, item in value.first[:_MAX_ITEMS]
        ]
        return f"{{{_joined(inner, value.count)}}}"
    if isinstance(value, (str, bytes, bytearray)):
        return _string_text(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"<a whole number of {value.bit_length()} bits>"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return _MORE


def _string_text(value: str | bytes | bytearray) -> str:
    if len(value) <= _MAX_STRING:
        return repr(value)
    return repr(value[:_MAX_STRING]) + _MORE


def _items_text(value: _Items, depth: int) -> str:
    inner = _joined([_text(item, depth + 1) for item in value.first[:_MAX_ITEMS]], value.count)
    if value.kind == "list":
        return f"[{inner}]"
    if value.kind == "tuple":
        return f"({inner},)" if value.count == 1 else f"({inner})"
    if value.kind == "set" and value.count:
        return f"{{{inner}}}"
    return f"{value.kind}({{{inner}}})" if value.count else f"{value.kind}()"


def _joined(shown: list[str], count: int) -> str:
    return ", ".join([*shown, _MORE] if count > len(shown) else shown)


def _made_text(value: _Made, depth: int) -> str:
    maker, args = value.maker, value.args
    first = _first(args)
    if _is_named(maker, "copyreg", "_reconstructor"):
        return f"{_text(first, depth + 1)}({_MORE})"
    if _is_named(maker, "builtins", "getattr") and isinstance(args, _Items) and args.count == 2:
        return f"{_text(first, depth + 1)}.{_plain(args.first[1])}"
    if _is_named(maker, "_codecs", "encode") and isinstance(first, str):
        return _string_text(first.encode("latin-1", "replace"))
    if isinstance(maker, _Global) and maker.module == "datetime":
        moment = _moment_text(maker, first)
        if moment:
            return moment
    if (
        isinstance(maker, _Global)
        and maker.module == "builtins"
        and maker.name in ("set", "frozenset")
        and isinstance(first, _Items)
    ):
        return _text(_as_set(maker.name, first), depth)
    name = _text(maker, depth + 1)
    if value.state is not None or not isinstance(args, _Items):
        return f"{name}({_MORE})"
    inner = [_text(item, depth + 1) for item in args.first[:_MAX_ITEMS]]
    return f"{name}({_joined(inner, args.count)})"


def _as_set(kind: str, items: _Items) -> _Items:
    renamed = _Items(kind, items.first)
    renamed.count = items.count
    return renamed


def _moment_text(maker: _Global, state: Any) -> str | None:
    # The constructors only unpack and check these few bytes.
    classes = {"datetime": datetime.datetime, "date": datetime.date, "time": datetime.time}
    cls = classes.get(maker.name)
    if isinstance(state, _Made) and _is_named(state.maker, "_codecs", "encode"):
        state = _first(state.args)
        raw = state.encode("latin-1") if isinstance(state, str) else None
    else:
        raw = state.encode("utf-8") if isinstance(state, str) else state
    if cls is None or not isinstance(raw, bytes) or len(raw) not in (4, 6, 10):
        return None
    try:
        return repr(cls(raw))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + _MORE
