"""Proto3 JSON into messages, with the words in which Google's REST front refuses.

All that is wrong with a request is told at once, by the paths of the fields as the API's
definition spells them.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from appengine_compat.local.fronts.rpc_status import BadRequestError

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TYPE_NAMES = {
    FieldDescriptor.TYPE_BOOL: "TYPE_BOOL",
    FieldDescriptor.TYPE_BYTES: "TYPE_BYTES",
    FieldDescriptor.TYPE_DOUBLE: "TYPE_DOUBLE",
    FieldDescriptor.TYPE_FLOAT: "TYPE_FLOAT",
    FieldDescriptor.TYPE_INT32: "TYPE_INT32",
    FieldDescriptor.TYPE_INT64: "TYPE_INT64",
    FieldDescriptor.TYPE_STRING: "TYPE_STRING",
    FieldDescriptor.TYPE_UINT32: "TYPE_UINT32",
    FieldDescriptor.TYPE_UINT64: "TYPE_UINT64",
}
_TIMESTAMP = "google.protobuf.Timestamp"
_DURATION = "google.protobuf.Duration"
_FIELD_MASK = "google.protobuf.FieldMask"
_SCALAR_MESSAGES = {
    _TIMESTAMP: (
        "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
    ),
    _DURATION: "Illegal duration format; duration must end with 's'",
}
_OTHER_WELL_KNOWN = frozenset(
    f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue", "Empty")
)
_DIGITS = re.compile(r"[+-]?[0-9]{1,40}")
_CAPITAL = re.compile(r"[A-Z]")
_SHOWN_CHARACTERS = 200


class _WrongError(Exception):
    """A value does not fit; the text says what Google's front would add to it."""


@dataclass
class Problems:
    """What is wrong with a request."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def unknown(self, path: str, name: str, why: str = "Cannot find field.") -> None:
        """Note a name that the message at a path does not have."""
        place = f" at '{path}'" if path else ""
        self.found.append(
            (path, f'Invalid JSON payload received. Unknown name "{name}"{place}: {why}')
        )

    def invalid(self, path: str, kind: str, detail: str) -> None:
        """Note a value that does not fit its field."""
        self.found.append((path, f"Invalid value at '{path}' ({kind}), {detail}"))

    def check(self) -> None:
        """Raise ``BadRequestError`` when anything was noted."""
        if self.found:
            raise BadRequestError("\n".join(text for _, text in self.found), self.found)


def parse(text: bytes) -> Any:
    """Return the value of a JSON text; an empty one is an empty object.

    Raises:
        BadRequestError: it is not JSON.
    """
    if not text.strip():
        return {}
    try:
        return _DECODER.decode(text.decode())
    except RecursionError:
        why = "Message too deep."
    except UnicodeDecodeError:
        why = "It is not UTF-8."
    except json.JSONDecodeError as error:
        near = error.doc[error.pos : error.pos + 20].partition("\n")[0]
        why = f"{'Unexpected token.' if near else 'Unexpected end of string.'}\n{near}\n^"
    except ValueError as error:
        why = str(error)
    raise BadRequestError(f"Invalid JSON payload received. {why}", [("", why)])


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"Unexpected token.\n{name}\n^")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def read(message: Any, value: Any, path: str, problems: Problems) -> None:
    """Fill a message from a JSON value.

    Args:
        message: the message to fill.
        value: what the JSON text holds.
        path: where in the request the message stands, "" for the whole.
        problems: takes what is wrong.
    """
    if not isinstance(value, dict):
        if path:
            problems.invalid(path, _kind_of(message.DESCRIPTOR), _shown(value))
        else:
            problems.unknown("", "", "Root element must be a message.")
        return
    fields = _fields(message.DESCRIPTOR)
    seen: dict[str, str] = {}
    for name, item in value.items():
        found = fields.get(name)
        if found is None:
            problems.unknown(path, name)
            continue
        if item is None:
            continue
        own_path = f"{path}.{found.name.rstrip('_')}" if path else found.name.rstrip("_")
        group = found.containing_oneof.name if found.containing_oneof else found.name
        if group in seen:
            if found.containing_oneof:
                problems.invalid(
                    path,
                    "oneof",
                    f"oneof field '{group}' is already set. Cannot set '{found.json_name}'",
                )
            else:
                problems.invalid(own_path, _kind(found), f"it is already set as '{seen[group]}'.")
            continue
        seen[group] = name
        _read_field(message, found, item, own_path, problems)


@lru_cache(maxsize=256)
def _fields(descriptor: Any) -> dict[str, Any]:
    names = {each.name: each for each in descriptor.fields}
    return names | {each.json_name: each for each in descriptor.fields}


def _is_repeated(found: Any) -> bool:
    # ``label`` warns in new releases of protobuf, and old ones do not have ``is_repeated``.
    if hasattr(found, "is_repeated"):
        return bool(found.is_repeated)
    return bool(found.label == FieldDescriptor.LABEL_REPEATED)


def _is_map(found: Any) -> bool:
    return found.message_type is not None and found.message_type.GetOptions().map_entry


def _kind_of(descriptor: Any) -> str:
    return f"type.googleapis.com/{descriptor.full_name}"


def _kind(found: Any) -> str:
    typed = found.message_type or found.enum_type
    return _kind_of(typed) if typed is not None else _TYPE_NAMES.get(found.type, "TYPE_UNKNOWN")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _read_field(message: Any, found: Any, value: Any, path: str, problems: Problems) -> None:
    if _is_map(found):
        _read_map(getattr(message, found.name), found, value, path, problems)
    elif _is_repeated(found):
        if not isinstance(value, list):
            problems.invalid(path, _kind(found), _shown(value))
            return
        _read_list(getattr(message, found.name), found, value, path, problems)
    elif found.message_type is not None:
        target = getattr(message, found.name)
        target.SetInParent()
        _read_message(target, value, path, problems)
    else:
        _read_scalar(found, value, path, problems, lambda it: setattr(message, found.name, it))


def _read_list(target: Any, found: Any, items: list[Any], path: str, problems: Problems) -> None:
    for place, item in enumerate(items):
        own_path = f"{path}[{place}]"
        if found.message_type is not None:
            _read_message(target.add(), item, own_path, problems)
        else:
            _read_scalar(found, item, own_path, problems, target.append)


def _read_map(target: Any, found: Any, value: Any, path: str, problems: Problems) -> None:
    if not isinstance(value, dict):
        problems.invalid(path, "Map", _shown(value))
        return
    fields = found.message_type.fields_by_name
    for place, (key, item) in enumerate(value.items()):
        keys: list[Any] = []
        _read_scalar(fields["key"], key, f"{path}[{place}].key", problems, keys.append)
        if not keys:
            continue
        own_path = f"{path}[{place}].value"
        if fields["value"].message_type is not None:
            _read_message(target[keys[0]], item, own_path, problems)
        else:

            def put(it: Any, key: Any = keys[0]) -> None:
                target[key] = it

            _read_scalar(fields["value"], item, own_path, problems, put)


def _read_message(target: Any, value: Any, path: str, problems: Problems) -> None:
    name = target.DESCRIPTOR.full_name
    kind = _kind_of(target.DESCRIPTOR)
    if name == _FIELD_MASK:
        if isinstance(value, str):
            target.paths.extend(mask_paths(value))
        else:
            problems.invalid(path, kind, _shown(value))
    elif name in _SCALAR_MESSAGES:
        try:
            if not isinstance(value, str):
                raise ValueError
            target.FromJsonString(value)
        except (ValueError, OverflowError):
            leaf = json_name(path.rpartition(".")[2])
            problems.invalid(path, kind, f"Field '{leaf}', {_SCALAR_MESSAGES[name]}")
    elif name in _OTHER_WELL_KNOWN:
        try:
            json_format.ParseDict(value, target)
        except json_format.ParseError as error:
            problems.invalid(path, kind, str(error))
    else:
        read(target, value, path, problems)


def _read_scalar(
    found: Any, value: Any, path: str, problems: Problems, put: Callable[[Any], None]
) -> None:
    try:
        put(_scalar(found, value))
    except (_WrongError, ValueError, OverflowError, TypeError) as error:
        added = str(error) if isinstance(error, _WrongError) else ""
        problems.invalid(path, _kind(found), added or _shown(value))


def _scalar(found: Any, value: Any) -> Any:
    if found.enum_type is not None:
        return _enum(found.enum_type, value)
    kind = found.cpp_type
    if kind in _INTEGERS:
        return _integer(value, *_INTEGERS[kind])
    if kind in _FLOATS:
        return _float(value)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _boolean(value)
    if not isinstance(value, str):
        raise _WrongError
    if found.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(value)
    value.encode()  # a lone surrogate is no text
    return value


def _enum(enum_type: Any, value: Any) -> int:
    if isinstance(value, str):
        known = enum_type.values_by_name.get(value)
        if known is not None:
            return int(known.number)
        # Query parameters are text, also where they hold numbers.
        if not _DIGITS.fullmatch(value):
            raise _WrongError
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _WrongError
    if value not in enum_type.values_by_number:
        raise _WrongError
    return value


def _integer(value: Any, lowest: int, highest: int) -> int:
    if isinstance(value, bool):
        raise _WrongError
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            raise _WrongError
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not lowest <= value <= highest:
        raise _WrongError
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise _WrongError
    if isinstance(value, str):
        special = _SPECIAL_FLOATS.get(value)
        return float(value.encode("ascii")) if special is None else special
    if not isinstance(value, int | float):
        raise _WrongError
    return float(value)


def _boolean(value: Any) -> bool:
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise _WrongError
    return value


def _bytes(text: str) -> bytes:
    # Python's client sends the standard alphabet, gcloud the one for URLs, others no padding.
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _WrongError(f"Base64 decoding failed for {_shown(text)}") from None


def mask_paths(text: str) -> list[str]:
    """Return the paths of a FieldMask's JSON form, lowerCamelCase or not, in snake_case."""
    paths = (path.strip() for path in text.split(","))
    return [_CAPITAL.sub(lambda it: "_" + it[0].lower(), path) for path in paths if path]


def json_name(name: str) -> str:
    """Return a field's name as JSON spells it."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def write(message: Any, *, enums_as_numbers: bool) -> bytes:
    """Return a message as JSON text."""
    value = json_format.MessageToDict(message, use_integers_for_enums=enums_as_numbers)
    return dumps(_tidied(value))


def dumps(value: Any) -> bytes:
    """Return a value as JSON text."""
    return _ENCODER.encode(value).encode()


def _tidied(value: Any) -> Any:
    # Whole numbers of type double are written without a fraction by Google's front.
    if isinstance(value, dict):
        return {key: _tidied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tidied(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
