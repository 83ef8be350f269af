"""Payloads that a real Python 2.7 made are read as what they were.

The cases are in python2_cases.json; python2_fixtures.py makes it.
"""

from __future__ import annotations

import array
import base64
import collections
import collections.abc
import datetime
import decimal
import fractions
import importlib
import importlib.util
import io
import itertools
import json
import os
import pickle
import queue
import sys
import time
import urllib.error
import urllib.parse
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.appengine.ext import deferred
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.payload import pickles, python2

HERE = Path(__file__).parent
CASES = json.loads((HERE / "python2_cases.json").read_text("ascii"))
NAMES = {
    module.__name__: module
    for module in (
        array, collections, datetime, decimal, fractions, importlib, io, itertools, os, queue,
        sys, time, uuid,
    )
} | {"urllib": urllib}  # fmt: skip


@pytest.fixture(autouse=True)
def app(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's module, under the name that it had in Python 2."""
    spec = importlib.util.spec_from_file_location("python2_app", HERE / "python2_app.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "python2_app", module)
    spec.loader.exec_module(module)
    return module


def same(value: Any, expected: Any) -> bool:
    """Tell whether two values are equal, and of equal types all the way down."""
    if type(value) is not type(expected) or value != expected:
        return False
    if isinstance(value, (list, tuple)):
        return all(map(same, value, expected))
    if isinstance(value, dict):
        return {(type(k), k): type(v) for k, v in value.items()} == {
            (type(k), k): type(v) for k, v in expected.items()
        }
    return True


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']} {case['name']}" for case in CASES])
def test_a_payload_of_python_2_becomes_what_it_was(case: dict[str, Any], app: ModuleType) -> None:
    for how, text in case["payloads"].items():
        result = deferred.run(base64.b64decode(text))
        value = result[0][0] if case["kind"] == "value" else result
        names = {**NAMES, "app": app, "value": value}
        expected = eval(case["expected"], names)
        if "value" in case["expected"]:
            assert expected, f"{how}: {value!r}"
        else:
            assert same(value, expected), f"{how}: {value!r}"


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 120


def test_a_text_class_is_not_made_of_bytes_that_are_no_text(app: ModuleType) -> None:
    """str(b"...") would succeed, and be the text "b'...'"."""
    payload = b"\x80\x02cpython2_app\necho\ncpython2_app\nText\nU\x01\xff\x85\x81\x85}\x87."
    with pytest.raises(deferred.PermanentTaskFailure, match=r"python2_app\.Text is text"):
        deferred.run(payload)


def test_a_name_that_nothing_stands_for_is_a_permanent_failure() -> None:
    payload = pickle.dumps((len, ("a",), {}), 2).replace(b"__builtin__\nlen", b"__builtin__\nlun")
    with pytest.raises(deferred.PermanentTaskFailure, match="lun"):
        deferred.run(payload)


@given(
    moment=st.datetimes(),
    day=st.dates(),
    clock=st.times(),
    text=st.text(st.characters(exclude_categories=["Cs"])),
    blob=st.binary(max_size=300),
)
def test_dates_text_and_bytes_of_one_payload_do_not_disturb_each_other(
    moment: datetime.datetime,
    day: datetime.date,
    clock: datetime.time,
    text: str,
    blob: bytes,
) -> None:
    """The bytes are those that Python 2.7's pickle writes for these values."""

    def string(raw: bytes) -> bytes:
        if len(raw) < 256:
            return b"U" + bytes([len(raw)]) + raw
        return b"T" + len(raw).to_bytes(4, "little") + raw

    def instant(name: str, value: Any) -> bytes:
        (raw, *_) = value.__reduce_ex__(2)[1]
        return b"cdatetime\n" + name.encode() + b"\n" + string(raw) + b"\x85R"

    data = (
        b"\x80\x02("
        + instant("datetime", moment)
        + instant("date", day)
        + instant("time", clock)
        + string(text.encode("utf-8"))
        + string(blob)
        + b"t."
    )
    try:
        judged: str | bytes = blob.decode("utf-8")
    except UnicodeDecodeError:
        judged = blob
    assert python2.loads(data) == (moment, day, clock, text, judged)


class TestWhatPython3Wrote:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize(
        "value",
        [
            "caf\xe9", b"\x00\xff", datetime.datetime(2020, 1, 2), {"k": {1, 2}}, range, map, str,
            bytes, [b"ascii"], decimal.Decimal("1.5"), Exception("\xe9"), 2**70, bytearray(b"\xff"),
        ],
        ids=repr,
    )  # fmt: skip
    def test_is_read_back_in_every_protocol(self, value: Any, protocol: int) -> None:
        _, (loaded,), kwargs = pickles.loads(pickle.dumps((print, (value,), {"k": 1}), protocol))
        assert repr(loaded) == repr(value)
        assert kwargs == {"k": 1}
