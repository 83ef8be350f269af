"""The filters of ListQueues: comparisons of a queue's fields in Cloud Logging's language.

``state: PAUSED AND rateLimits.maxDispatchesPerSecond >= 5``; as there, OR binds closer than AND,
which may be left out, and texts compare without regard to case.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor

from appengine_compat.core import messages
from appengine_compat.local.fronts.versions import V2

Test = Callable[[Any], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator><=|>=|!=|=~|!~|[=:<>])
      | (?P<bracket>[()])
      | (?P<minus>-(?=[A-Za-z(]))
      | "(?P<quoted>(?:[^"\\]|\\.)*)"
      | (?P<word>[^\s()=:<>!"]+(?::[0-9][^\s()=<>!"]*)*)
    )""",
    re.X | re.S,
)
_ESCAPED = re.compile(r"\\(.)", re.S)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ":": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MOST_CHARACTERS = 20_000


def compiled(text: str) -> Test:
    """Return a function that tells whether a v2 queue's message passes a filter.

    Raises:
        ApiError: INVALID_ARGUMENT: it cannot be read, or names what a queue does not have.
    """
    if len(text) > _MOST_CHARACTERS:
        raise messages.filter_invalid(f"it is longer than {_MOST_CHARACTERS} characters.")
    try:
        return _Parser(text).whole()
    except RecursionError:
        raise messages.filter_invalid("its brackets are nested too deep.") from None


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._place = 0

    def whole(self) -> Test:
        test = self._and()
        if self._place < len(self._tokens):
            raise messages.filter_invalid(f"{self._tokens[self._place][1]!r} is not expected.")
        return test

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._place += 1
        return token

    def _and(self) -> Test:
        tests = [self._or()]
        while self._peek()[0] != "end" and self._peek() != ("bracket", ")"):
            if self._peek() == ("word", "AND"):
                self._next()
            tests.append(self._or())
        return tests[0] if len(tests) == 1 else lambda queue: all(test(queue) for test in tests)

    def _or(self) -> Test:
        tests = [self._not()]
        while self._peek() == ("word", "OR"):
            self._next()
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda queue: any(test(queue) for test in tests)

    def _not(self) -> Test:
        if self._peek() == ("word", "NOT") or self._peek()[0] == "minus":
            self._next()
            test = self._not()
            return lambda queue: not test(queue)
        if self._peek() == ("bracket", "("):
            self._next()
            test = self._and()
            if self._next() != ("bracket", ")"):
                raise messages.filter_invalid("a bracket is not closed.")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        kind, path = self._next()
        if kind != "word":
            raise messages.filter_invalid(f"a field is expected where {path or 'it ends'!r} is.")
        kind, sign = self._next()
        if kind != "operator" or sign not in _COMPARISONS:
            raise messages.filter_invalid(
                f"{path} must be followed by one of {', '.join(_COMPARISONS)}."
            )
        kind, value = self._next()
        if kind not in ("word", "quoted"):
            raise messages.filter_invalid(f"a value is expected after {path} {sign}.")
        fields = _path_fields(path)
        if sign == ":" and kind == "word" and value == "*":
            return lambda queue: any(True for _ in _found(queue, fields))
        compare = _leaf_test(fields[-1], path, sign, value)
        return lambda queue: any(compare(each) for each in _found(queue, fields))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise messages.filter_invalid(f"{text[place:].strip()[:40]!r} cannot be read.")
        kind = str(match.lastgroup)
        value = match[kind]
        yield kind, _ESCAPED.sub(r"\1", value) if kind == "quoted" else value
        place = match.end()


def _path_fields(path: str) -> list[Any]:
    """Return the fields that a path goes through, each spelled as in JSON or in protobuf."""
    descriptor = V2.queue.DESCRIPTOR
    fields: list[Any] = []
    for name in path.split("."):
        known = [] if descriptor is None else descriptor.fields
        found = next((each for each in known if name in (each.name, each.json_name)), None)
        if found is None:
            raise messages.filter_invalid(f"a queue has no field {path}.")
        fields.append(found)
        descriptor = found.message_type
    return fields


def _found(message: Any, fields: list[Any]) -> Iterator[Any]:
    """Yield what stands at the end of a path: nothing where a message is unset."""
    first, *rest = fields
    value = getattr(message, first.name)
    if not isinstance(value, str | bytes | int | float) and not hasattr(value, "DESCRIPTOR"):
        items = list(value)
    elif first.has_presence and not message.HasField(first.name):
        return
    else:
        items = [value]
    for item in items:
        if rest:
            yield from _found(item, rest)
        else:
            yield item


def _leaf_test(field: Any, path: str, sign: str, text: str) -> Test:
    compare = _COMPARISONS[sign]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        wanted = text.lower()
        if sign == ":":
            return lambda value: wanted in value.lower()
        return lambda value: compare(value.lower(), wanted)
    of_field, of_text = _measures(field, path)
    try:
        literal = of_text(text)
    except (KeyError, ValueError, OverflowError):
        raise messages.filter_invalid(f"{text!r} is no value for {path}.") from None
    return lambda value: compare(of_field(value), literal)


def _measures(field: Any, path: str) -> tuple[Callable[[Any], Any], Callable[[str], Any]]:
    """Return what makes comparable values of a field's values, and of a filter's text."""
    if field.enum_type is not None:
        numbers = {each.name.upper(): each.number for each in field.enum_type.values}
        return int, lambda text: int(text) if text.isdigit() else numbers[text.upper()]
    if field.message_type is None:
        return float, float
    kind = field.message_type.full_name
    if kind == "google.protobuf.Duration":
        return _duration_nanoseconds, _duration_of
    if kind == "google.protobuf.Timestamp":
        return lambda value: value.ToNanoseconds(), _timestamp_of
    raise messages.filter_invalid(f"{path} is not a single value; {path}:* tells if it is set.")


def _duration_nanoseconds(duration: Any) -> int:
    return int(duration.ToNanoseconds())


def _duration_of(text: str) -> int:
    duration = duration_pb2.Duration()
    duration.FromJsonString(text if text.endswith("s") else f"{text}s")
    return _duration_nanoseconds(duration)


def _timestamp_of(text: str) -> int:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromJsonString(text)
    return int(timestamp.ToNanoseconds())
