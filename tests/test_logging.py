"""Logs of tasks: each record knows its task and its trace, and each task ends with a line."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.appengine.api import taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from appengine_compat import defer_middleware
from appengine_compat import logging as task_logging
from appengine_compat.backends import choice
from appengine_compat.backends.base import Outcome, TaskRequest
from appengine_compat.core import telemetry
from appengine_compat.handler import door

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"HTTP_TRACEPARENT": f"00-{TRACE}-{SPAN}-01"}
CARRIED = {"traceparent", "x-cloud-trace-context"}
log = logging.getLogger("work")


def work(text: str) -> None:
    log.info("working on %s", text)


def fails() -> None:
    raise LookupError("no such thing")


def hopeless() -> None:
    raise deferred.PermanentTaskFailure("never")


def chains() -> None:
    deferred.defer(work, "the next")


class Sent:
    """A backend that remembers what it was to send."""

    kind = "cloudtasks"

    def __init__(self) -> None:
        self.requests: list[TaskRequest] = []

    def create_tasks(self, queue: str, requests: Any, **_: Any) -> list[Outcome]:
        self.requests += requests
        return [Outcome("t") for _ in requests]

    def delete_tasks(self, *_: Any, **__: Any) -> Any: ...

    def purge_queue(self, *_: Any, **__: Any) -> Any: ...

    def queue_stats(self, *_: Any, **__: Any) -> Any: ...


@pytest.fixture(autouse=True)
def _tasks_believed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    for name in ("GAE_ENV", "K_SERVICE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    level = logging.root.level
    door.trust_tests(True)
    yield
    door.trust_tests(False)
    task_logging.reset()
    logging.root.setLevel(level)


@pytest.fixture
def sent() -> Iterator[Sent]:
    backend = Sent()
    choice.activate(backend)
    yield backend
    choice.deactivate(backend)


@pytest.fixture
def console() -> io.StringIO:
    return listen()


def listen() -> io.StringIO:
    handler = task_logging.setup()
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    return stream


def task(payload: bytes, retries: int = 0, **environ: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/_ah/queue/deferred",
        "SERVER_SOFTWARE": "Development/2.0",
        "HTTP_X_APPENGINE_QUEUENAME": "mail",
        "HTTP_X_APPENGINE_TASKNAME": "task1",
        "HTTP_X_APPENGINE_TASKRETRYCOUNT": str(retries),
        "HTTP_X_APPENGINE_TASKETA": "1700000000.0",
        "CONTENT_LENGTH": str(len(payload)),
        "wsgi.input": io.BytesIO(payload),
        **environ,
    }


def nothing_else(environ: Any, start_response: Any) -> list[bytes]:
    log.info("an ordinary request")
    start_response("200 OK", [])
    return [b""]


APPS = {
    "wrapped": lambda: wrap_wsgi_app(nothing_else, use_deferred=True),
    "routes alone": lambda: defer_middleware(nothing_else),
    "the handler alone": lambda: deferred.application,
}


@pytest.fixture(params=sorted(APPS))
def app(request: pytest.FixtureRequest) -> Any:
    return APPS[request.param]()


def serve(app: Any, environ: dict[str, Any]) -> str:
    statuses: list[str] = []
    body = app(environ, lambda status, headers, *exc_info: statuses.append(status))
    list(body)
    getattr(body, "close", lambda: None)()
    return statuses[-1]


def test_each_record_knows_its_task(app: Any, console: io.StringIO) -> None:
    seen: list[logging.LogRecord] = []
    log.addFilter(lambda record: seen.append(record) or True)
    try:
        serve(app, task(deferred.serialize(work, "it"), retries=2, **TRACED))
    finally:
        log.filters.clear()
    (record,) = seen
    found = {key[4:]: value for key, value in vars(record).items() if key.startswith("aec_")}
    assert found == {
        "queue": "mail", "task": "task1", "function": f"{__name__}.work", "attempt": 3,
        "retry_count": 2, "trace": TRACE, "span": SPAN, "trace_sampled": True,
    }  # fmt: skip
    (line,) = [line for line in console.getvalue().splitlines() if "working on" in line]
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d INFO work: working on it  \[mail/task1 {__name__}\.work, attempt 3\]",
        line,
    )


def test_a_task_ends_with_one_line(app: Any, console: io.StringIO) -> None:
    assert serve(app, task(deferred.serialize(work, "it"))).startswith("200")
    (line,) = [line for line in console.getvalue().splitlines() if "tasks: " in line]
    assert re.search(
        rf"INFO appengine_compat\.tasks: Task task1 of queue mail: {__name__}\.work succeeded with "
        r"200 in \d+ ms, attempt 1, begun \d+\.\d s after it was due$",
        line,
    )


def test_so_does_one_that_fails(app: Any, console: io.StringIO) -> None:
    with pytest.raises(LookupError):
        serve(app, task(deferred.serialize(fails)))
    (line,) = [line for line in console.getvalue().splitlines() if "compat.tasks: " in line]
    assert (
        f"WARNING appengine_compat.tasks: Task task1 of queue mail: {__name__}.fails failed in "
        in line
    )


def test_and_one_that_fails_for_good(app: Any, console: io.StringIO) -> None:
    assert serve(app, task(deferred.serialize(hopeless))).startswith("200")
    (line,) = [line for line in console.getvalue().splitlines() if "compat.tasks: " in line]
    assert f"{__name__}.hopeless failed for good with 200 in " in line


def test_a_task_of_the_apps_own_is_told_by_its_path(console: io.StringIO) -> None:
    environ = task(b"") | {"PATH_INFO": "/tasks/mail"}
    serve(wrap_wsgi_app(nothing_else), environ)
    first, last = console.getvalue().splitlines()
    assert first.endswith("an ordinary request  [mail/task1 POST /tasks/mail, attempt 1]")
    assert "POST /tasks/mail succeeded with 200" in last


def test_nothing_of_a_task_is_left_behind(app: Any, console: io.StringIO) -> None:
    serve(app, task(deferred.serialize(work, "it"), **TRACED))
    console.truncate(0)
    record = logging.makeLogRecord({})
    log.info("after it")
    assert "[" not in console.getvalue()
    assert logging.getLogRecordFactory()("n", 20, "p", 1, "m", (), None).__dict__["aec_trace"] == ""
    assert not hasattr(record, "taskqueue")


def test_a_request_that_is_no_task_has_a_trace_and_no_line(console: io.StringIO) -> None:
    seen: list[str] = []
    log.addFilter(lambda record: seen.append(record.__dict__["aec_trace"]) or True)
    try:
        serve(wrap_wsgi_app(nothing_else), {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **TRACED})
    finally:
        log.filters.clear()
    assert seen == [TRACE]
    assert console.getvalue().count("\n") == 1


def test_without_setup_nothing_is_logged(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    serve(app, task(deferred.serialize(work, "it")))
    assert not [each for each in caplog.records if each.name == "appengine_compat.tasks"]


@pytest.mark.parametrize("variable", ["GAE_ENV", "K_SERVICE", "KUBERNETES_SERVICE_HOST"])
def test_on_googles_platforms_entries_are_json_with_labels_and_trace(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_PROJECT", "my-project")
    monkeypatch.setenv(variable, "standard")
    stream = listen()
    serve(APPS["wrapped"](), task(deferred.serialize(work, "it"), **TRACED))
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    (entry,) = [each for each in entries if each.get("message") == "working on it"]
    labels = entry["logging.googleapis.com/labels"]
    assert labels.items() >= {
        "queue": "mail", "task_name": "task1", "function": f"{__name__}.work", "attempt": "1",
        "retry_count": "0",
    }.items()  # fmt: skip
    assert entry["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE}"
    assert entry["logging.googleapis.com/spanId"] == SPAN
    assert entry["logging.googleapis.com/trace_sampled"] is True
    (summary,) = [each for each in entries if each.get("outcome")]
    assert summary["outcome"] == "succeeded"
    assert summary["severity"] == "INFO"
    assert summary["status"] == 200
    assert summary["age_seconds"] > 0
    assert "milliseconds" in summary


def test_what_a_program_says_of_its_records_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_PROJECT", "my-project")
    monkeypatch.setenv("K_SERVICE", "app")
    stream = listen()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        log.info("own", extra={"labels": {"queue": "mine"}, "trace": "t"})
        start_response("200 OK", [])
        return [b""]

    serve(wrap_wsgi_app(app), task(b"", **TRACED))
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    (entry,) = [each for each in entries if each.get("message") == "own"]
    assert entry["logging.googleapis.com/labels"]["queue"] == "mine"
    assert entry["logging.googleapis.com/labels"]["task_name"] == "task1"
    assert entry["logging.googleapis.com/trace"] == "t"


def test_a_second_setup_does_not_double_lines(console: io.StringIO) -> None:
    again = listen()
    log.info("once")
    assert console.getvalue() == ""
    assert again.getvalue().count("once") == 1


class TestCarrying:
    def test_a_request_hands_its_trace_to_what_it_enqueues(self, sent: Sent) -> None:
        tasks: list[Any] = []

        def app(environ: Any, start_response: Any) -> list[bytes]:
            tasks.append(deferred.defer(work, "it", _headers={"X-Reason": "test"}))
            taskqueue.Queue("mail").add_async(taskqueue.Task(url="/x")).get_result()
            return nothing_else(environ, start_response)

        serve(wrap_wsgi_app(app), {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **TRACED})
        assert len(sent.requests) == 2
        for request in sent.requests:
            headers = dict(request.headers)
            assert headers["traceparent"] == TRACED["HTTP_TRACEPARENT"]
            assert headers["X-Cloud-Trace-Context"] == f"{TRACE}/{int(SPAN, 16)};o=1"
        # What old code sees of its task is what it gave.
        assert not {name.lower() for name in tasks[0].headers} & CARRIED

    @pytest.mark.parametrize("kind", ["wrapped", "routes alone"])
    def test_so_does_a_task(self, kind: str, sent: Sent) -> None:
        serve(APPS[kind](), task(deferred.serialize(chains), **TRACED))
        assert dict(sent.requests[0].headers)["traceparent"] == TRACED["HTTP_TRACEPARENT"]

    def test_nothing_is_carried_outside_of_requests(self, sent: Sent) -> None:
        deferred.defer(work, "it")
        assert not {name.lower() for name, _ in sent.requests[0].headers} & CARRIED

    def test_a_trace_of_the_tasks_own_stays(self, sent: Sent) -> None:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            deferred.defer(work, "it", _headers={"Traceparent": "own"})
            return nothing_else(environ, start_response)

        serve(wrap_wsgi_app(app), {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **TRACED})
        headers = {name.lower(): value for name, value in sent.requests[0].headers}
        assert headers["traceparent"] == "own"
        assert "x-cloud-trace-context" not in headers

    def test_a_tests_stub_shows_tasks_as_they_were_given(self, taskqueue_stub: Any) -> None:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            deferred.defer(work, "it")
            return nothing_else(environ, start_response)

        serve(wrap_wsgi_app(app), {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **TRACED})
        (found,) = taskqueue_stub.get_filtered_tasks()
        assert "traceparent" not in {name.lower() for name in found.headers}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The API lets a process set its provider once; each test is to have its own.
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)
    return exporter


class TestSpans:
    def test_enqueueing_and_running_are_linked(
        self, app: Any, sent: Sent, spans: InMemorySpanExporter
    ) -> None:
        deferred.defer(work, "it", _queue="mail")
        carried = dict(sent.requests[0].headers)["traceparent"]
        serve(app, task(sent.requests[0].payload, HTTP_TRACEPARENT=carried))
        enqueue, run = spans.get_finished_spans()
        assert (enqueue.name, enqueue.kind) == ("enqueue mail", otel.SpanKind.PRODUCER)
        assert (run.name, run.kind) == ("run mail", otel.SpanKind.CONSUMER)
        assert run.links[0].context.span_id == enqueue.context.span_id
        assert run.context.trace_id == enqueue.context.trace_id
        assert run.parent is not None
        assert run.parent.span_id == enqueue.context.span_id
        assert attributes(run)["appengine_compat.function"] == f"{__name__}.work"
        assert attributes(run)["messaging.message.id"] == "task1"
        assert run.status.status_code is otel.StatusCode.UNSET

    def test_what_a_task_enqueues_belongs_to_its_span(
        self, app: Any, sent: Sent, spans: InMemorySpanExporter
    ) -> None:
        serve(app, task(deferred.serialize(chains)))
        enqueue, run = spans.get_finished_spans()
        assert enqueue.parent is not None
        assert enqueue.parent.span_id == run.context.span_id

    def test_a_failure_is_told(self, app: Any, spans: InMemorySpanExporter) -> None:
        with pytest.raises(LookupError):
            serve(app, task(deferred.serialize(fails)))
        (run,) = spans.get_finished_spans()
        assert run.status.status_code is otel.StatusCode.ERROR
        assert [event.name for event in run.events] == ["exception"]

    def test_a_span_of_the_request_is_the_parent_and_ends_untouched(
        self, app: Any, spans: InMemorySpanExporter
    ) -> None:
        with otel.get_tracer_provider().get_tracer("t").start_as_current_span("request"):
            serve(app, task(deferred.serialize(work, "it"), **TRACED))
            assert otel.get_current_span().is_recording()
        run, request = spans.get_finished_spans()
        assert run.parent is not None
        assert run.parent.span_id == request.context.span_id
        assert run.links[0].context.trace_id == int(TRACE, 16)

    def test_logs_and_spans_agree(self, spans: InMemorySpanExporter) -> None:
        listen()
        seen: list[str] = []
        log.addFilter(lambda record: seen.append(record.__dict__["aec_span"]) or True)
        try:
            serve(APPS["wrapped"](), task(deferred.serialize(work, "it")))
        finally:
            log.filters.clear()
        (run,) = spans.get_finished_spans()
        assert run.context is not None
        assert seen == [f"{run.context.span_id:016x}"]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_without_opentelemetry_set_up_there_are_no_spans() -> None:
    assert not telemetry.is_set_up()
    assert telemetry.current() is None
    with telemetry.enqueuing("mail", 1) as span:
        assert span is None
