"""``deferred`` answers as Google's SDK does: the same bytes, tasks, answers and exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity import deferred_cases
from tests.parity.deferred_cases import PREAMBLE
from tests.parity.test_taskqueue import assert_same

if TYPE_CHECKING:
    from tests.parity.conftest import Side


@pytest.mark.parametrize(("code", "surroundings"), list(deferred_cases.cases()))
def test_same_answer(code: str, surroundings: dict[str, Any], sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, PREAMBLE + code, **surroundings)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_names = st.sampled_from(["a", "b", "key", "_method", "data"])
_several = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_several
@given(st.lists(_values, max_size=3), st.dictionaries(_names, _values, max_size=2))
def test_payloads_are_the_same_bytes_and_mean_the_same(
    sdk: Side, ours: Side, args: list[Any], kwargs: dict[str, Any]
) -> None:
    call = f"deferred.serialize(dict, *{args!r}, **{kwargs!r})"
    assert_same(sdk, ours, PREAMBLE + call)
    assert_same(sdk, ours, PREAMBLE + f"deferred.run({call})")


@_several
@given(st.binary(max_size=30))
def test_bytes_that_are_no_payload_are_the_same_failure(sdk: Side, ours: Side, data: bytes) -> None:
    code = PREAMBLE + f"permanent(deferred.run, b'\\x80\\x04' + {data!r})"
    theirs, mine = sdk.observe(code), ours.observe(code)
    assert ("returned" in str(theirs)) == ("returned" in str(mine))
