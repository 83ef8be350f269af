from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import trace
from appengine_compat.core.trace import Trace

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def of(**headers: str) -> Trace | None:
    return trace.of_request({f"HTTP_{name.upper()}": value for name, value in headers.items()})


def test_w3cs_header_is_read() -> None:
    assert of(traceparent=f"00-{ID}-{SPAN}-01") == Trace(ID, SPAN, True)
    assert of(traceparent=f"00-{ID}-{SPAN}-00") == Trace(ID, SPAN, False)


def test_a_later_version_of_it_may_say_more() -> None:
    assert of(traceparent=f"01-{ID}-{SPAN}-01-more") == Trace(ID, SPAN, True)


def test_googles_header_is_read_whole_or_in_part() -> None:
    span = int(SPAN, 16)
    assert of(x_cloud_trace_context=f"{ID}/{span};o=1") == Trace(ID, SPAN, True)
    assert of(x_cloud_trace_context=f"{ID.upper()}/{span}") == Trace(ID, SPAN, False)
    assert of(x_cloud_trace_context=ID) == Trace(ID)
    assert of(x_cloud_trace_context=f"{ID}/0;o=1") == Trace(ID, "", True)


def test_w3cs_goes_before_googles_unless_it_is_malformed() -> None:
    other = "1" * 32
    assert of(traceparent=f"00-{ID}-{SPAN}-01", x_cloud_trace_context=other) == Trace(
        ID, SPAN, True
    )
    assert of(traceparent="nonsense", x_cloud_trace_context=other) == Trace(other)


@pytest.mark.parametrize(
    "text",
    [
        "", f"ff-{ID}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{SPAN}-01", f"00-{ID}-{SPAN}-01\n00-x", f"00-{ID}-{SPAN}",
    ],
)  # fmt: skip
def test_what_is_malformed_is_no_trace(text: str) -> None:
    assert of(traceparent=text) is None


@given(st.text(max_size=120))
def test_whatever_a_stranger_writes_raises_nothing(text: str) -> None:
    of(traceparent=text, x_cloud_trace_context=text)


@given(
    st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans(), st.sampled_from([0, 1])
)
def test_either_header_alone_carries_all(
    trace_id: int, span: int, sampled: bool, which: int
) -> None:
    place = Trace(f"{trace_id:032x}", f"{span:016x}", sampled)
    name, value = trace.headers(place)[which]
    assert of(**{name.replace("-", "_"): value}) == place


def test_a_trace_without_span_travels_as_googles_only() -> None:
    assert trace.headers(Trace(ID)) == (("X-Cloud-Trace-Context", f"{ID};o=0"),)
