"""The trace that the running code belongs to, and the headers in which it travels.

A request brings its trace as W3C's ``traceparent``, or as Google's ``X-Cloud-Trace-Context``. A
task that it enqueues carries both, so that whatever serves the task shows the two as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

TRACEPARENT = "traceparent"
CLOUD_TRACE_CONTEXT = "X-Cloud-Trace-Context"
TRACEPARENT_KEY = "HTTP_TRACEPARENT"
CLOUD_TRACE_CONTEXT_KEY = "HTTP_X_CLOUD_TRACE_CONTEXT"

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_CLOUD = re.compile(r"(?!0{32})([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]{1,3}))?")
_SAMPLED = 1
_MOST_SPANS = 1 << 64


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str = ""
    """16 hexadecimal digits; "" when only the trace is known."""
    is_sampled: bool = False


CURRENT: ContextVar[Trace | None] = ContextVar("appengine_compat_trace", default=None)
"""The trace of the request, or the task, that the running code serves."""


def of_request(environ: Mapping[str, Any]) -> Trace | None:
    """Return the trace that a request brings, or None; what is malformed is passed over.

    Args:
        environ: the request's WSGI environ.
    """
    text = environ.get(TRACEPARENT_KEY)
    if text is not None:
        found = _TRACEPARENT.fullmatch(text.strip())
        if found:
            return Trace(found[1], found[2], bool(int(found[3], 16) & _SAMPLED))
    text = environ.get(CLOUD_TRACE_CONTEXT_KEY)
    if text is not None:
        found = _CLOUD.fullmatch(text.strip())
        if found:
            span = int(found[2] or 0)
            return Trace(
                found[1].lower(),
                f"{span:016x}" if 0 < span < _MOST_SPANS else "",
                bool(int(found[3] or 0) & _SAMPLED),
            )
    return None


def enter(environ: Mapping[str, Any]) -> None:
    """Make a request's trace the current one in this context, if the request brings one."""
    if TRACEPARENT_KEY in environ or CLOUD_TRACE_CONTEXT_KEY in environ:
        CURRENT.set(of_request(environ))


def headers(trace: Trace) -> tuple[tuple[str, str], ...]:
    """Return the headers that carry a trace."""
    if not trace.span_id:
        return ((CLOUD_TRACE_CONTEXT, f"{trace.trace_id};o={int(trace.is_sampled)}"),)
    return (
        (TRACEPARENT, f"00-{trace.trace_id}-{trace.span_id}-{int(trace.is_sampled):02x}"),
        (
            CLOUD_TRACE_CONTEXT,
            f"{trace.trace_id}/{int(trace.span_id, 16)};o={int(trace.is_sampled)}",
        ),
    )


def has_own(names: Iterable[str]) -> bool:
    """Tell whether one of these names of headers carries a trace already."""
    return any(name.lower() in _NAMES for name in names)


_NAMES = (TRACEPARENT, CLOUD_TRACE_CONTEXT.lower())
