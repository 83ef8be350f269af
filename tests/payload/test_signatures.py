"""Whether arguments fit is told as Python itself would find out, without calling."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.payload.signatures import misfit


@st.composite
def functions(draw: st.DrawFn) -> Callable[..., Any]:
    """A function of any signature, which returns what it is given."""
    names = iter("abcdefgh")
    parts: list[str] = []
    has_default = False
    for mark in ("/", ""):
        several = [next(names) for _ in range(draw(st.integers(0, 2)))]
        for name in several:
            has_default = has_default or draw(st.booleans())
            parts.append(f"{name}=0" if has_default else name)
        if mark and several:
            parts.append(mark)
    keyword_only = [next(names) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        parts.append("*rest")
    elif keyword_only:
        parts.append("*")
    parts += [f"{name}=0" if draw(st.booleans()) else name for name in keyword_only]
    if draw(st.booleans()):
        parts.append("**more")
    names_space: dict[str, Any] = {}
    exec(f"def function({', '.join(parts)}): pass", names_space)
    function: Callable[..., Any] = names_space["function"]
    return function


@given(
    functions(),
    st.lists(st.just(1), max_size=5).map(tuple),
    st.dictionaries(st.sampled_from("abcdefghz"), st.just(1), max_size=4),
    st.booleans(),
)
def test_a_warning_is_given_if_and_only_if_the_call_raises_type_error(
    function: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int], is_method: bool
) -> None:
    call: Any = function
    if is_method:
        call = type("Owner", (), {"function": function})().function
    try:
        call(*args, **kwargs)
    except TypeError:
        expected = True
    else:
        expected = False
    assert (misfit(call, args, kwargs) is not None) is expected


class Strange:
    @property
    def __signature__(self) -> Any:
        raise RuntimeError("nobody may ask")

    def __call__(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("nobody may ask")


@pytest.mark.parametrize("make", [Strange, lambda: 5, lambda: None, lambda: type, object])
def test_what_cannot_be_told_is_not_warned_of(make: Callable[[], Any]) -> None:
    assert misfit(make(), (1, 2, 3), {}) is None


def test_a_builtins_signature_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    misfit(len, ("a",), {})

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(inspect, "signature", refuse)
    assert misfit(len, ("a",), {}) is None
    assert "missing a required argument: 'obj'" in str(misfit(len, (), {}))


def test_the_methods_of_builtins_do_not_keep_their_objects_alive() -> None:
    class Large(bytearray):
        """Something that tells when it is gone."""

    large = Large(b"x")
    is_there = weakref.ref(large)
    misfit(large.decode, (), {})
    del large
    assert is_there() is None


def test_a_class_may_change_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Work:
        def __init__(self, one: int) -> None: ...

    assert misfit(Work, (), {}) is not None
    monkeypatch.setattr(Work, "__init__", lambda self: None)
    assert misfit(Work, (), {}) is None
