"""Spans of OpenTelemetry, where the program has set it up; nothing otherwise.

A program that never imported OpenTelemetry cannot have set it up, so its absence costs one look.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from appengine_compat.core.trace import Trace

_NAME = "appengine_compat"


def is_set_up() -> bool:
    """Tell whether the program has set a provider of spans."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return False
    # What the API answers with until somebody sets one, whose spans go nowhere.
    return not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)


@contextlib.contextmanager
def enqueuing(queue: str, count: int) -> Iterator[Trace | None]:
    """Have a span while tasks are sent; what is raised within is told by it.

    Args:
        queue: the queue's id.
        count: how many tasks.

    Yields:
        The span's place, for the tasks to carry; None where OpenTelemetry is not set up.
    """
    if not is_set_up():
        yield None
        return
    from opentelemetry import trace as api

    with api.get_tracer(_NAME).start_as_current_span(
        f"enqueue {queue}",
        kind=api.SpanKind.PRODUCER,
        attributes={
            "messaging.system": "gcp_cloud_tasks",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
            "messaging.batch.message_count": count,
        },
    ) as span:
        place = span.get_span_context()
        yield _trace(place) if place.is_valid else None


def begin_running(
    name: str, attributes: Mapping[str, str | int], enqueued: Trace | None
) -> tuple[Any, Any] | None:
    """Begin the span of an attempt and make it the current one.

    It belongs to the span that is current, else to the one of the enqueuer, and is linked to that.

    Args:
        name: of the span.
        attributes: of the span.
        enqueued: what the task carried.

    Returns:
        What ``end_running`` takes; None where OpenTelemetry is not set up.
    """
    if not is_set_up():
        return None
    from opentelemetry import context
    from opentelemetry import trace as api

    links, parent = [], None
    if enqueued is not None and enqueued.span_id:
        place = api.SpanContext(
            int(enqueued.trace_id, 16),
            int(enqueued.span_id, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(int(enqueued.is_sampled)),
        )
        links = [api.Link(place)]
        if not api.get_current_span().get_span_context().is_valid:
            parent = api.set_span_in_context(api.NonRecordingSpan(place))
    span = api.get_tracer(_NAME).start_span(
        name, context=parent, kind=api.SpanKind.CONSUMER, attributes=attributes, links=links
    )
    return span, context.attach(api.set_span_in_context(span))


def end_running(
    begun: tuple[Any, Any], attributes: Mapping[str, str | int], failure: str, error: Any = None
) -> None:
    """End the span of an attempt, in the context in which it was begun.

    Args:
        begun: what ``begin_running`` returned.
        attributes: what is known by now.
        failure: "" for success.
        error: the exception, if there was one.
    """
    from opentelemetry import context
    from opentelemetry import trace as api

    span, token = begun
    span.set_attributes(attributes)
    if error is not None:
        span.record_exception(error)
    if failure:
        span.set_status(api.StatusCode.ERROR, failure)
    span.end()
    context.detach(token)


def place_of(begun: tuple[Any, Any]) -> Trace | None:
    """Return where a span stands, for what it enqueues."""
    place = begun[0].get_span_context()
    return _trace(place) if place.is_valid else None


def current() -> Trace | None:
    """Return the place of the span that is current, or None."""
    if not is_set_up():
        return None
    from opentelemetry import trace as api

    place = api.get_current_span().get_span_context()
    return _trace(place) if place.is_valid else None


def _trace(place: Any) -> Trace:
    return Trace(
        f"{place.trace_id:032x}", f"{place.span_id:016x}", bool(int(place.trace_flags) & 1)
    )
