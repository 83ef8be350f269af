"""What Python 2 had by a name that Python 3 has no more, or gives to something else.

``pickle`` itself knows the modules that were renamed. Here are the names that are gone, and
those whose function changed: a deferred ``map(f, xs)`` ran ``f`` in Python 2, and would do
nothing as Python 3's lazy ``map``.
"""

from __future__ import annotations

import _compat_pickle
import importlib
import io
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def equivalent(module: str, name: str) -> Any:
    """Return what stands for a name of Python 2, or None where ``pickle`` knows best.

    Args:
        module: its module in Python 2.
        name: its name there.
    """
    place = _PLACES.get((module, name))
    if place is None:
        return None
    found: Any = importlib.import_module(place[0])
    for part in place[1].split("."):
        found = getattr(found, part)
    return found


def place(module: str, name: str) -> tuple[str, str]:
    """Return where Python 3 has what Python 2 had by a name, importing nothing.

    Args:
        module: its module in Python 2, or in Python 3.
        name: its name there.
    """
    moved = _PLACES.get((module, name)) or _compat_pickle.NAME_MAPPING.get((module, name))
    return moved or (_compat_pickle.IMPORT_MAPPING.get(module, module), name)


def cmp(left: Any, right: Any) -> int:
    """Return -1, 0 or 1 as left is less than, equal to or greater than right."""
    return int(left > right) - int(left < right)


def apply(
    function: Callable[..., Any], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Call a function with a sequence of arguments and a mapping of keyword arguments."""
    return function(*args, **(kwargs or {}))


def map_(function: Callable[..., Any] | None, *sequences: Iterable[Any]) -> list[Any]:
    """Return the list of what a function returns; shorter sequences are filled with None."""
    if len(sequences) == 1:
        return list(sequences[0]) if function is None else [function(x) for x in sequences[0]]
    rows = itertools.zip_longest(*sequences)
    return list(rows) if function is None else [function(*row) for row in rows]


def filter_(function: Callable[[Any], Any] | None, sequence: Iterable[Any]) -> Any:
    """Return the items for which a function holds, as a str, tuple or list like the sequence."""
    kept = [item for item in sequence if (item if function is None else function(item))]
    if isinstance(sequence, str):
        return "".join(kept)
    return tuple(kept) if isinstance(sequence, tuple) else kept


def zip_(*sequences: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return a list of tuples, as long as the shortest sequence."""
    return list(zip(*sequences, strict=False))


def range_(*bounds: int) -> list[int]:
    """Return the list of an arithmetic progression."""
    return list(range(*bounds))


def execfile(
    path: str, global_names: dict[str, Any] | None = None, local_names: Any = None
) -> None:
    """Run a file of Python 3 source code."""
    with open(path, "rb") as source:  # noqa: PTH123 - paths came as text or bytes
        code = compile(source.read(), path, "exec")
    names = {} if global_names is None else global_names
    exec(code, names, names if local_names is None else local_names)


def is_mapping(value: Any) -> bool:
    """Tell whether a value is a mapping."""
    return isinstance(value, Mapping)


def is_number(value: Any) -> bool:
    """Tell whether a value is a number, by having a number's methods."""
    return hasattr(value, "__int__") or hasattr(value, "__float__")


def is_sequence(value: Any) -> bool:
    """Tell whether a value can be indexed and is no mapping."""
    return hasattr(value, "__getitem__") and not isinstance(value, Mapping)


def divide(left: Any, right: Any) -> Any:
    """Divide as Python 2 did: whole numbers by whole numbers give whole numbers."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    return left / right


def get_slice(sequence: Any, start: int, stop: int) -> Any:
    """Return ``sequence[start:stop]``."""
    return sequence[start:stop]


def set_slice(sequence: Any, start: int, stop: int, items: Any) -> None:
    """Set ``sequence[start:stop]``."""
    sequence[start:stop] = items


def delete_slice(sequence: Any, start: int, stop: int) -> None:
    """Delete ``sequence[start:stop]``."""
    del sequence[start:stop]


def join(words: Iterable[str], separator: str = " ") -> str:
    """Join words, by blanks unless told otherwise."""
    return separator.join(words)


def replace(text: str, old: str, new: str, most: int = -1) -> str:
    """Return a text with old replaced by new, at most so many times."""
    return text.replace(old, new, most)


def translate(text: str, table: str | bytes, deletions: str = "") -> str:
    """Return a text without some characters, the others replaced by a table of 256."""
    return "".join(letter for letter in text if letter not in deletions).translate(table)


def escape(text: str, quote: bool = False) -> str:
    """Escape a text for HTML; the double quote only on request."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;") if quote else text


def atoi(text: str, base: int = 10) -> int:
    """Read a whole number."""
    return int(text, base)


def zfill(value: Any, width: int) -> str:
    """Fill a number's text with zeros on the left."""
    return (value if isinstance(value, str) else repr(value)).zfill(width)


class Rebuilt:
    """Stands for an object while its pickle is read; ``rebuilt`` gives what it becomes."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rebuilt(self) -> Any:
        """Return the object of Python 3."""
        raise NotImplementedError


class StringIO(Rebuilt):
    """Becomes an ``io.StringIO``, or an ``io.BytesIO`` when its content is not text."""

    def rebuilt(self) -> io.StringIO | io.BytesIO:
        """Return a stream with the content and the position."""
        pieces = [self.state.get("buf", ""), *self.state.get("buflist", ())]
        stream: Any
        if all(isinstance(piece, str) for piece in pieces):
            stream = io.StringIO("".join(pieces), newline="")
            # Python 2 counted bytes; the place in the text is where as many bytes have passed.
            passed = "".join(pieces).encode("utf-8", "surrogatepass")[: self.state.get("pos", 0)]
            stream.seek(len(passed.decode("utf-8", "ignore")))
            return stream  # type: ignore[no-any-return]
        stream = io.BytesIO(
            b"".join(p.encode("utf-8") if isinstance(p, str) else p for p in pieces)
        )
        stream.seek(self.state.get("pos", 0))
        return stream  # type: ignore[no-any-return]


class Set(Rebuilt):
    """Becomes a set: what the module ``sets`` had before Python had sets."""

    kind: type[set[Any]] | type[frozenset[Any]] = set

    def rebuilt(self) -> Any:
        """Return a set of the members, which its state keeps as the keys of a dictionary."""
        state = self.state
        while isinstance(state, tuple):
            state = next((part for part in state if part), ())
        if isinstance(state, dict) and "_data" in state:
            state = state["_data"]
        return self.kind(state)


class ImmutableSet(Set):
    """Becomes a frozenset."""

    kind = frozenset


_HERE = __name__

# Module and name in Python 2 → module and name in Python 3, imported when needed.
_OWN_OR_MOVED: dict[str, dict[str, tuple[str, str]]] = {
    "__builtin__": {
        "apply": (_HERE, "apply"),
        "basestring": ("builtins", "str"),
        "buffer": ("builtins", "memoryview"),
        "cmp": (_HERE, "cmp"),
        "execfile": (_HERE, "execfile"),
        "file": ("builtins", "open"),
        "filter": (_HERE, "filter_"),
        "map": (_HERE, "map_"),
        "range": (_HERE, "range_"),
        "raw_input": ("builtins", "input"),
        "reload": ("importlib", "reload"),
        "zip": (_HERE, "zip_"),
    },
    "string": {
        "atof": ("builtins", "float"),
        "atoi": (_HERE, "atoi"),
        "atol": (_HERE, "atoi"),
        "join": (_HERE, "join"),
        "joinfields": (_HERE, "join"),
        "replace": (_HERE, "replace"),
        "splitfields": ("builtins", "str.split"),
        "translate": (_HERE, "translate"),
        "zfill": (_HERE, "zfill"),
        # A method of str takes the text first, as the module's function did.
        **{
            name: ("builtins", f"str.{name}")
            for name in (
                "capitalize", "center", "count", "expandtabs", "find", "index", "ljust",
                "lower", "lstrip", "rfind", "rindex", "rjust", "rsplit", "rstrip", "split",
                "strip", "swapcase", "upper",
            )
        },
    },
    "operator": {
        "delslice": (_HERE, "delete_slice"),
        "div": (_HERE, "divide"),
        "getslice": (_HERE, "get_slice"),
        "idiv": (_HERE, "divide"),
        "irepeat": ("operator", "imul"),
        "isCallable": ("builtins", "callable"),
        "isMappingType": (_HERE, "is_mapping"),
        "isNumberType": (_HERE, "is_number"),
        "isSequenceType": (_HERE, "is_sequence"),
        "repeat": ("operator", "mul"),
        "sequenceIncludes": ("operator", "contains"),
        "setslice": (_HERE, "set_slice"),
    },
    "collections": {
        name: ("collections.abc", name)
        for name in (
            "Callable", "Container", "Hashable", "ItemsView", "Iterable", "Iterator", "KeysView",
            "Mapping", "MappingView", "MutableMapping", "MutableSequence", "MutableSet",
            "Sequence", "Set", "Sized", "ValuesView",
        )
    },
    "StringIO": {"StringIO": (_HERE, "StringIO")},
    "UserDict": {
        "DictMixin": ("collections.abc", "MutableMapping"),
        "UserDict": ("collections", "UserDict"),
    },
    "cgi": {"escape": (_HERE, "escape")},
    "exceptions": {"StandardError": ("builtins", "Exception")},
    "new": {"instancemethod": ("types", "MethodType")},
    "os": {"getcwdu": ("os", "getcwd")},
    "posix": {"getcwdu": ("os", "getcwd")},
    "sets": {"ImmutableSet": (_HERE, "ImmutableSet"), "Set": (_HERE, "Set")},
    "time": {"clock": ("time", "process_time")},
}  # fmt: skip

_PLACES: dict[tuple[str, str], tuple[str, str]] = {
    (module, name): place
    for module, names in _OWN_OR_MOVED.items()
    for name, place in names.items()
}
