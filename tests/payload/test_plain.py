"""Reading a plain pickle calls nothing, whatever is in it."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.errors import PayloadError
from appengine_compat.payload import plain

leaves = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(values)
def test_plain_values_come_back(value: object) -> None:
    assert plain.loads(plain.dumps(value)) == value
    assert pickle.loads(plain.dumps(value)) == value


class Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize("value", [Attack(), OrderedDict(), print])
def test_whatever_has_a_name_is_refused(
    value: object, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(PayloadError, match="only text, bytes, numbers"):
        plain.loads(pickle.dumps(value))
    assert os.listdir() == []  # noqa: PTH208


@given(st.binary())
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        plain.loads(data)
    except PayloadError:
        pass
