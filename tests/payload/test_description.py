"""What a payload would call is read from it, without executing anything."""

from __future__ import annotations

import base64
import collections
import datetime
import decimal
import functools
import operator
import pickle
import pickletools
import sys
from typing import Any

import pytest
from google.appengine.ext import deferred
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.payload import opcodes
from appengine_compat.payload.description import MAX_TEXT_CHARACTERS, describe

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
HERE = __name__
executed: list[Any] = []


def work(*args: Any, **kwargs: Any) -> None: ...


def explode(*args: Any) -> Any:
    executed.append(args)


class Account:
    def __init__(self, name: str = "") -> None:
        self.name = name

    def greet(self, word: str) -> None: ...

    @classmethod
    def make(cls) -> None: ...

    class Inner:
        def method(self) -> None: ...


class Bomb:
    def __reduce__(self) -> Any:
        return explode, (1,)


def text(call: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> str:
    return str(describe(pickle.dumps(call, protocol)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestEveryProtocol:
    def test_a_function_and_its_arguments(self, protocol: int) -> None:
        found = describe(pickle.dumps((work, (1, "a", None), {"key": [True, 1.5]}), protocol))
        assert found is not None
        assert found.function == f"{HERE}.work"
        assert found.arguments == ("1", "'a'", "None", "key=[True, 1.5]")
        assert str(found) == f"{HERE}.work(1, 'a', None, key=[True, 1.5])"

    def test_containers(self, protocol: int) -> None:
        args = ({"a": (1,)}, {2}, frozenset({3}), [], {}, (), set())
        shown = text((work, args, {}), protocol)
        assert shown == f"{HERE}.work({{'a': (1,)}}, {{2}}, frozenset({{3}}), [], {{}}, (), set())"

    def test_bytes_and_times(self, protocol: int) -> None:
        args = (
            b"\x00\xff",
            datetime.datetime(2020, 1, 2, 3, 4),
            datetime.date(2020, 1, 2),
            datetime.time(1, 2),
        )
        assert text((work, args, {}), protocol) == f"{HERE}.work({', '.join(map(repr, args))})"

    def test_objects_by_their_class(self, protocol: int) -> None:
        shown = text((work, (Account("ada"), decimal.Decimal("1.5"), int), {}), protocol)
        assert shown == f"{HERE}.work({HERE}.Account(…), decimal.Decimal('1.5'), int)"

    def test_methods_by_class_and_name(self, protocol: int) -> None:
        def curried(method: Any, *args: Any) -> str:
            call = deferred.deferred._curry_callable(method, *args)
            return text(call, protocol)

        assert curried(Account("ada").greet, "hi") == f"{HERE}.Account.greet('hi')"
        assert curried(Account.make) == f"{HERE}.Account.make()"
        assert curried(Account.Inner().method) == f"{HERE}.Account.Inner.method()"
        assert curried([1].append, 2) == "list.append(2)"
        assert curried({"a": 1}.get, "a") == "dict.get('a')"
        assert curried(datetime.date(2020, 1, 2).isoformat) == "datetime.date.isoformat()"

    def test_partials_with_all_their_arguments(self, protocol: int) -> None:
        call = (functools.partial(work, 1, a=2), (3,), {"b": 4})
        assert text(call, protocol) == f"{HERE}.work(1, 3, a=2, b=4)"

    def test_callable_instances_classes_and_builtins(self, protocol: int) -> None:
        assert text((Account("ada"), (1,), {}), protocol) == f"{HERE}.Account(…)(1)"
        assert text((Account, ("ada",), {}), protocol) == f"{HERE}.Account('ada')"
        assert text((len, ("ada",), {}), protocol) == "len('ada')"
        assert text((operator.add, (1, 2), {}), protocol).endswith("operator.add(1, 2)")

    def test_base64(self, protocol: int) -> None:
        payload = pickle.dumps((work, (1,), {}), protocol)
        assert describe(base64.b64encode(payload)) == describe(payload)

    def test_nothing_is_executed(self, protocol: int) -> None:
        executed.clear()
        shown = text((work, (Bomb(),), {}), protocol)
        assert shown == f"{HERE}.work({HERE}.explode(1))"
        assert executed == []

    def test_nothing_is_imported(self, protocol: int) -> None:
        payload = pickle.dumps((work, (), {}), protocol).replace(HERE.encode(), b"x" * len(HERE))
        assert str(describe(payload)) == f"{'x' * len(HERE)}.work()"
        assert "x" * len(HERE) not in sys.modules


def test_a_stored_payload_is_shown_by_its_key() -> None:
    payload = deferred.serialize(deferred.run_from_datastore, "the-key")
    assert str(describe(payload)) == (
        "google.appengine.ext.deferred.deferred.run_from_datastore('the-key')"
    )


def test_what_python_2_wrote() -> None:
    payload = b"\x80\x02capp\nf\nU\x05caf\xc3\xa9U\x02\xff\x00\x86}U\x01kK\x01s\x87."
    assert str(describe(payload)) == "app.f('caf\xe9', b'\\xff\\x00', k=1)"
    method = (
        b"\x80\x02cgoogle.appengine.ext.deferred.deferred\ninvoke_member\n"
        b"(iapp\nOld\nU\x05greetU\x02hi\x87}\x87."
    )
    assert str(describe(method)) == "app.Old.greet('hi')"


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"\x80", pickle.dumps(5), pickle.dumps((1, 2)), pickle.dumps((5, (), {})),
     pickle.dumps(("text", (), {})), pickle.dumps((len, 5, {})), None, "text"],
)  # fmt: skip
def test_what_is_no_call_has_no_description(payload: Any) -> None:
    assert describe(payload) is None


def test_a_payload_that_was_cut_still_tells_its_function() -> None:
    payload = pickle.dumps((work, ("x" * 500,), {}))
    assert str(describe(payload[:200])) == f"{HERE}.work(…)"


class TestLimits:
    def test_long_strings_are_cut(self) -> None:
        assert text((work, ("x" * 1000,), {})) == f"{HERE}.work('{'x' * 60}'…)"

    def test_long_containers_are_cut(self) -> None:
        assert text((work, ([0] * 100,), {})) == f"{HERE}.work([{'0, ' * 8}…])"
        shown = text((work, tuple(range(100)), {}))
        assert shown == f"{HERE}.work(0, 1, 2, 3, 4, 5, 6, 7, …)"

    def test_huge_numbers_are_told_by_size(self) -> None:
        assert text((work, (2**100_000,), {})) == f"{HERE}.work(<a whole number of 100001 bits>)"

    def test_deep_nesting_ends(self) -> None:
        nested: Any = 1
        for _ in range(100):
            nested = [nested]
        assert text((work, (nested,), {})) == f"{HERE}.work([[[[[…]]]]])"

    def test_a_loop_ends(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        assert text((work, (loop,), {})).startswith(f"{HERE}.work([[[")

    def test_a_million_opcodes_are_not_followed(self) -> None:
        payload = pickle.dumps((work, ([None] * 1_000_000,), {}))
        assert str(describe(payload)) == f"{HERE}.work(…)"
        method = deferred.serialize(Account("ada").greet, [None] * 100_000)
        assert str(describe(method)) == f"{HERE}.Account.greet(…)"

    def test_a_widening_tree_of_shared_parts_ends(self) -> None:
        shared: Any = "x" * 60
        for _ in range(30):
            shared = [shared] * 30
        assert len(text((work, (shared,) * 30, {}))) <= MAX_TEXT_CHARACTERS


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.datetimes() | st.dates(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.lists(values, max_size=4), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_short_arguments_are_shown_as_their_repr(args: list[Any], protocol: int) -> None:
    payload = pickle.dumps((work, tuple(args), {}), protocol)
    found = describe(payload)
    assert found is not None
    # Earlier protocols leave something out: the fold of a time.
    for shown, value in zip(found.arguments, pickle.loads(payload)[1], strict=True):
        if isinstance(value, (bool, float, type(None), datetime.date)) or (
            isinstance(value, (str, bytes)) and len(value) <= 60
        ):
            assert shown == repr(value)


@given(st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    for start in (b"", b"\x80\x02", b"(", b"\x80\x05"):
        assert len(str(describe(start + data))) <= MAX_TEXT_CHARACTERS


@given(st.data())
def test_any_sequence_of_opcodes(data: st.DataObject) -> None:
    """Each opcode with an argument that it can have, in an order that nobody would write."""
    codes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    pieces = data.draw(st.lists(st.tuples(st.sampled_from(codes), st.binary(max_size=6))))
    payload = b"\x80\x04" + b"".join(code + arg + b"\n" for code, arg in pieces)
    assert len(str(describe(payload))) <= MAX_TEXT_CHARACTERS


@given(st.data())
def test_damaged_payloads(data: st.DataObject) -> None:
    protocol = data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL))
    args = (Account("a"), {"k": [1]}, collections.OrderedDict(a=1), functools.partial(work, 1))
    payload = bytearray(pickle.dumps((Account.Inner, args, {"k": 1}), protocol))
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    assert len(str(describe(bytes(payload)))) <= MAX_TEXT_CHARACTERS


def test_every_opcode_is_known() -> None:
    """A new protocol's opcodes would be read over in silence."""
    known = (
        set(opcodes._VALUES) | set(opcodes._PYTHON2_STRINGS) | set(opcodes._CONSTANTS)
        | set(opcodes._CONTAINERS) | set(opcodes._STEPS)
        | {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
        | {"GLOBAL", "INST", "STOP", "PROTO", "FRAME", "READONLY_BUFFER"}
    )  # fmt: skip
    assert {op.name for op in pickletools.opcodes} == known
