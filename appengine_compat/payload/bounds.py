"""Reading payloads within bounds: only what the operator has named may be looked up and called.

To unpickle is to run what the bytes say, by the names in them. With ``ALLOWED_CALLABLES`` set, a
name that is not allowed is refused before its module is imported; and so is every way that leads
from an allowed thing to one that is not: a dotted name through a module's own imports
(``app.tasks.os.system``), ``getattr`` and ``invoke_member`` on the inner attributes of functions
and frames, changing a class or a function instead of an instance.

What the operator has allowed may be called with any arguments: bounds make a stolen queue less
useful, they are not the door.
"""

from __future__ import annotations

import copyreg
import enum
import importlib
import io
import logging
import pickle
import sys
import threading
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, NoReturn

from appengine_compat import settings
from appengine_compat.errors import PayloadError
from appengine_compat.payload import python2, python2_names
from appengine_compat.settings import AllowedNames

_log = logging.getLogger("appengine_compat.handler")

_MOST_COLLECTED = 1000

# What pickles of plain values name; none of it runs code of the payload's choosing.
_PLAIN: dict[str, frozenset[str]] = {
    "builtins": frozenset(
        {
            "Ellipsis", "NotImplemented", "bool", "bytearray", "bytes", "complex", "dict",
            "float", "frozenset", "int", "list", "object", "set", "slice", "str", "tuple",
        }
    ),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "copyreg": frozenset({"_reconstructor", "__newobj__", "__newobj_ex__"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "fractions": frozenset({"Fraction"}),
    "functools": frozenset({"partial"}),
    "pytz": frozenset({"_UTC", "_p"}),
    "appengine_compat.payload.self_test": frozenset({"answer"}),
    "uuid": frozenset({"SafeUUID", "UUID"}),
    "zoneinfo": frozenset({"ZoneInfo", "ZoneInfo._unpickle"}),
    python2_names.__name__: frozenset({"ImmutableSet", "Set", "StringIO"}),
    "google.appengine.ext.deferred.deferred": frozenset({"run_from_datastore"}),
    "google.appengine.ext.deferred": frozenset({"run_from_datastore"}),
}  # fmt: skip

_INVOKE_MEMBER = frozenset(
    {
        ("google.appengine.ext.deferred.deferred", "invoke_member"),
        ("google.appengine.ext.deferred", "invoke_member"),
    }
)
_METHODS = (MethodType, BuiltinFunctionType, MethodWrapperType)
_NOT_INSTANCES = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


class BoundsError(PayloadError):
    """A payload reaches for something that is not allowed; nothing of it was called."""


class Bounds:
    """What payloads may refer to, by one value of the setting."""

    def __init__(self, allowed: AllowedNames) -> None:
        self._names = allowed.names
        self._prefixes = tuple(name + "." for name in allowed.names)
        self._is_log_only = allowed.is_log_only

    def loads(self, data: bytes) -> Any:
        """Return what a pickle holds.

        Args:
            data: the pickle, not wrapped in base64.

        Raises:
            BoundsError: it reaches for something that is not allowed.
            Exception: whatever else makes it unreadable.
        """
        is_python3 = data[:1] == b"\x80" and data[1:2] > b"\x02"
        if self._is_log_only:
            return _collected(self, data, is_python3)
        if is_python3:
            return self._within(_Bounded(data, self).load())
        return self._within(python2.with_text_keywords(_BoundedPython2(data, self).load()))

    def allows(self, module: str, name: str) -> bool:
        """Tell whether a name may be looked up."""
        return name in _PLAIN.get(module, ()) or self.lists(f"{module}.{name}")

    def lists(self, dotted: str) -> bool:
        """Tell whether the setting has a dotted name, or the module or class that it lies in."""
        return dotted in self._names or dotted.startswith(self._prefixes)

    def checked(self, found: Any, module: str, name: str) -> Any:
        """Return what a name led to, if it is where the name says.

        Raises:
            BoundsError: it is something that was only imported there, or not there to be called.
        """
        dotted = f"{module}.{name}"
        if isinstance(found, ModuleType):
            # Also one that the setting names: what it has imported would be its attributes.
            _refuse(dotted, "which is a module")
        if name in _PLAIN.get(module, ()) or dotted in self._names:
            return found
        home = getattr(found, "__module__", None)
        own_name = getattr(found, "__qualname__", name)
        if (
            any(part.startswith("__") for part in name.split("."))
            or not isinstance(home, str)
            or not self.lists(f"{home}.{own_name}")
        ):
            _refuse(dotted, f"which is at home in {home}" if isinstance(home, str) else "")
        return found

    def lists_home(self, found: Any) -> bool:
        """Tell whether the setting has the place where a function, method or class is at home."""
        return isinstance(found, (MethodType, FunctionType, type)) and self.lists(
            f"{found.__module__}.{found.__qualname__}"
        )

    def _within(self, loaded: Any) -> Any:
        if not (isinstance(loaded, tuple) and len(loaded) == 3):
            return loaded
        function, args, kwargs = loaded
        if not isinstance(function, _InvokeMember):
            return loaded
        # Whatever can be iterated over would do for the call.
        args = tuple(args)
        if len(args) > 1:
            self._check_member(args[0], args[1])
        return function.real, args, kwargs

    def _check_member(self, obj: Any, name: Any) -> None:
        if type(name) is not str or name != "__call__":
            _refuse_inner(obj, name)
        try:
            found = getattr(obj, name)
        except Exception:
            return  # the call raises it anew, where the task's own errors are handled
        owner = getattr(found, "__self__", None)
        is_method = isinstance(found, _METHODS) and (owner is obj or owner is type(obj))
        # A class may hold what its module only imported: ``run = staticmethod(os.system)``.
        if not is_method and not self.lists_home(found):
            _refuse(f"the attribute {name!r:.100} of a {type(obj).__qualname__}")


_read: tuple[AllowedNames, Bounds] | None = None


def current() -> Bounds | None:
    """Return the bounds that hold now; None where payloads may refer to anything.

    Raises:
        ConfigError: the setting's value is not allowed.
    """
    global _read
    # Asked for every task, and nearly everywhere it is not set.
    if not settings.ALLOWED_CALLABLES.is_set_for_process:
        return None
    allowed = settings.ALLOWED_CALLABLES.get()
    if allowed is None:
        return None
    if _read is None or _read[0] != allowed:
        _read = (allowed, Bounds(allowed))
    return _read[1]


def _refuse(what: str, why: str = "") -> NoReturn:
    raise BoundsError(
        f"The payload reaches for {what}{', ' if why else ''}{why}, which "
        f"{settings.ALLOWED_CALLABLES.variable} does not allow. If it is meant to run, add it or "
        "its module there, and run the kept task again."
    )


# The unpickler in C cannot be told what to do with each opcode.
_PurePython: Any = pickle._Unpickler


class _BoundedReading(_PurePython):  # type: ignore[misc]
    """The pure-Python unpickler, bounded; comes before an unpickler among the bases of a class."""

    stack: list[Any]
    read: Callable[[int], bytes]

    def __init__(self, data: bytes, bounds: Bounds) -> None:
        super().__init__(io.BytesIO(data))
        self._bounds = bounds
        self._length = len(data)
        self._named: list[Any] = []

    def find_class(self, module: str, name: str) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            _refuse(f"{module!r:.100} {name!r:.100}")
        module, name = self._place(module, name)
        if (module, name) in _INVOKE_MEMBER:
            return _InvokeMember(_imported(module, name))
        replaced = _REPLACED.get((module, name))
        if replaced is not None:
            return replaced(self._bounds)
        if not self._bounds.allows(module, name) and not _is_error(module, name):
            _refuse(f"{module}.{name}"[:300])
        found = _imported(module, name)
        if not _is_error(module, name):
            self._bounds.checked(found, module, name)
        self._named.append(found)
        return found

    def _place(self, module: str, name: str) -> tuple[str, str]:
        return module, name

    def get_extension(self, code: int) -> None:
        # The registry's cache would pass find_class by.
        registered = copyreg._inverted_registry.get(code)  # type: ignore[attr-defined]
        if registered is None:
            raise pickle.UnpicklingError(f"unregistered extension code {code}")
        self.stack.append(self.find_class(*registered))

    def load_build(self) -> None:
        instance = self.stack[-2]
        if isinstance(instance, _NOT_INSTANCES) or any(instance is each for each in self._named):
            _refuse(f"{instance!r:.200}", "to change what belongs to the program")
        super().load_build()

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        # pickle would take the memory first and see then that the bytes are not there.
        if size > self._length:
            raise pickle.UnpicklingError("pickle data was truncated")
        self.stack.append(bytearray(self.read(size)))


def _imported(module: str, name: str) -> Any:
    # Not by pickle's own find_class, which may rename what was just looked at.
    sys.audit("pickle.find_class", module, name)
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Bounded(_BoundedReading):
    dispatch = dict(_PurePython.dispatch)
    dispatch[pickle.BUILD[0]] = _BoundedReading.load_build
    dispatch[pickle.BYTEARRAY8[0]] = _BoundedReading.load_bytearray8


class _BoundedPython2(_BoundedReading, python2._Unpickler):
    dispatch = dict(python2._Unpickler.dispatch)
    dispatch[pickle.BUILD[0]] = _BoundedReading.load_build
    dispatch[pickle.BYTEARRAY8[0]] = _BoundedReading.load_bytearray8

    def _place(self, module: str, name: str) -> tuple[str, str]:
        return python2_names.place(module, name)


def _is_error(module: str, name: str) -> bool:
    import builtins

    found = getattr(builtins, name, None) if module == "builtins" else None
    return isinstance(found, type) and issubclass(found, BaseException)


class _InvokeMember:
    """Stands for ``invoke_member`` while a pickle is read: it may be the call, not part of it."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.real = real


def _refuse_inner(obj: Any, name: Any) -> None:
    # Not of a class of its own, whose startswith might say anything.
    if type(name) is not str or name.startswith("__") or isinstance(obj, _InvokeMember):
        _refuse(f"the attribute {name!r:.100} of a {type(obj).__qualname__}")


def _member_getter(bounds: Bounds) -> Callable[[Any, str], Any]:
    """Return what stands for ``getattr``, by which bound methods and enum members are pickled."""

    def member(obj: Any, name: str, /) -> Any:
        _refuse_inner(obj, name)
        found = getattr(obj, name)
        if isinstance(found, enum.Enum) and isinstance(obj, type) and isinstance(found, obj):
            return found
        if isinstance(obj, type) and f"{obj.__qualname__}.{name}" in _PLAIN.get(obj.__module__, ()):
            return found
        if bounds.lists_home(found):
            return found
        _refuse(f"the attribute {name!r:.100} of a {type(obj).__qualname__}")

    return member


def _encoder(_: Bounds) -> Callable[[str, str], bytes]:
    """Return what stands for ``_codecs.encode``, by which old protocols write bytes."""

    def encode(text: str, encoding: str = "latin1", /) -> bytes:
        if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
            _refuse(f"the encoding {encoding!r:.100}")
        return text.encode("latin-1")

    return encode


_REPLACED: dict[tuple[str, str], Callable[[Bounds], Any]] = {
    ("builtins", "getattr"): _member_getter,
    ("_codecs", "encode"): _encoder,
}


# --- log-only ---

_lock = threading.Lock()
_collected_names: set[str] = set()


class _Collecting(pickle.Unpickler):
    bounds: Bounds

    def find_class(self, module: str, name: str) -> Any:
        _collect(self.bounds, module, name)
        return super().find_class(module, name)


class _CollectingPython2(python2._Unpickler):
    bounds: Bounds

    def find_class(self, module: str, name: str) -> Any:
        _collect(self.bounds, *python2_names.place(module, name))
        return super().find_class(module, name)


def _collected(bounds: Bounds, data: bytes, is_python3: bool) -> Any:
    reader: Any = _Collecting if is_python3 else _CollectingPython2
    unpickler = reader(io.BytesIO(data))
    unpickler.bounds = bounds
    loaded = unpickler.load()
    return loaded if is_python3 else python2.with_text_keywords(loaded)


def _collect(bounds: Bounds, module: str, name: str) -> None:
    dotted = f"{module}.{name}"
    if (
        dotted in _collected_names
        or bounds.allows(module, name)
        or (module, name) in _INVOKE_MEMBER
        or (module, name) in _REPLACED
        or _is_error(module, name)
    ):
        return
    with _lock:
        if len(_collected_names) >= _MOST_COLLECTED:
            return
        _collected_names.add(dotted)
    _log.warning(
        "A payload refers to %.300s, which %s does not allow yet. All that this process has seen, "
        "as a setting: %s",
        dotted,
        settings.ALLOWED_CALLABLES.variable,
        ready_setting(),
    )


def ready_setting() -> str:
    """Return the setting that would allow what is allowed now and what log-only has collected."""
    allowed = settings.ALLOWED_CALLABLES.get()
    with _lock:
        names = sorted({*(allowed.names if allowed else ()), *_collected_names})
    return f"{settings.ALLOWED_CALLABLES.variable}={','.join(names)}"


def forget_collected() -> None:
    """Forget what log-only has collected."""
    with _lock:
        _collected_names.clear()
