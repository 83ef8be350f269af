"""Signed tasks at the door: alone, beside another proof, and never read before they are genuine."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import time
from typing import Any

import flask
import pytest

from appengine_compat import require_task
from appengine_compat.handler import door, refusals
from appengine_compat.handler.door import Trust, Verdict
from appengine_compat.payload import signing

from .conftest import Issuer

KEYS = (("k", "0123456789abcdef"),)
BODY = b"\x80\x05the body."
PATH = "/_ah/queue/deferred"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "APPENGINE_COMPAT_BACKEND"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k:0123456789abcdef")
    monkeypatch.setattr(refusals, "_windows", {})


class Unread(io.BytesIO):
    """A body that nobody may look at."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")


def signature(body: bytes = BODY, **changes: Any) -> str:
    task: dict[str, Any] = {
        "method": "POST", "url": PATH, "queue": "q", "task_name": "t", "body": body,
        "at": time.time(), **changes,
    }  # fmt: skip
    return signing.sign(KEYS, **task)


def environ(header: str | None, body: bytes = BODY, **values: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": PATH, "QUERY_STRING": "",
        "HTTP_X_CLOUDTASKS_QUEUENAME": "q", "HTTP_X_CLOUDTASKS_TASKNAME": "t",
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "REMOTE_ADDR": "9.9.9.9",
        "wsgi.url_scheme": "http", "HTTP_HOST": "app.example.com",
    }  # fmt: skip
    if header is not None:
        made["HTTP_X_AEC_SIGNATURE"] = header
    return {**made, **values}


def asked(header: str | None, body: bytes = BODY, **values: Any) -> Verdict:
    return door.verdict(environ(header, body, **values))


def test_a_signed_task_is_let_in_and_its_body_is_still_there() -> None:
    request = environ(signature())
    assert door.verdict(request) == Verdict(True, Trust.SIGNATURE, "key k")
    assert request["wsgi.input"].read() == BODY


def test_a_body_without_length_is_read_where_the_server_ends_it() -> None:
    ended = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert asked(signature(), **ended).trusted
    assert asked(signature(), BODY + b"more", **ended).code == "AEC-SIGNATURE-BODY"
    assert asked(signature(b""), b"", CONTENT_LENGTH="").trusted


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"HTTP_X_CLOUDTASKS_QUEUENAME": "other"}, "AEC-SIGNATURE-MISMATCH"),
        ({"HTTP_X_CLOUDTASKS_TASKNAME": "other"}, "AEC-SIGNATURE-MISMATCH"),
        ({"PATH_INFO": "/other"}, "AEC-SIGNATURE-MISMATCH"),
        ({"QUERY_STRING": "a=b"}, "AEC-SIGNATURE-MISMATCH"),
        ({"REQUEST_METHOD": "PUT"}, "AEC-SIGNATURE-MISMATCH"),
        ({"HTTP_X_AEC_SIGNATURE": "v1 forged"}, "AEC-SIGNATURE-MALFORMED"),
        ({"HTTP_X_AEC_SIGNATURE": ""}, "AEC-SIGNATURE-MALFORMED"),
        ({"CONTENT_LENGTH": "999999999"}, "AEC-SIGNATURE-BODY"),
        ({"CONTENT_LENGTH": "-1"}, "AEC-SIGNATURE-BODY"),
    ],
)
def test_whatever_does_not_fit_is_refused_unread(change: dict[str, str], code: str) -> None:
    found = asked(signature(), **{"wsgi.input": Unread(), **change})
    assert (found.status, found.code) == (403, code)


def test_a_replay_past_its_age_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURE_MAX_AGE", "60")
    old = signature(at=time.time() - 120)
    assert asked(old, **{"wsgi.input": Unread()}).code == "AEC-SIGNATURE-AGE"


def test_another_body_under_a_genuine_signature_is_refused() -> None:
    assert asked(signature(), BODY[::-1]).code == "AEC-SIGNATURE-BODY"
    assert asked(signature(), BODY[:-1], CONTENT_LENGTH=str(len(BODY))).code == "AEC-SIGNATURE-BODY"


def test_another_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = signature()
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "other:0123456789abcdef")
    assert asked(made, **{"wsgi.input": Unread()}).code == "AEC-SIGNATURE-KEY"
    monkeypatch.delenv("APPENGINE_COMPAT_SIGNING_KEYS")
    assert asked(made, **{"wsgi.input": Unread()}).code == "AEC-SIGNATURE-NO-KEYS-SET"


def test_switched_off_a_signature_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURES", "off")
    assert asked(signature()).code == "AEC-NO-CREDENTIALS"


class TestBesideAToken:
    """Where the platform's token shows a task, the signature comes on top of it."""

    def token(self, issuer: Issuer) -> dict[str, str]:
        return {"HTTP_AUTHORIZATION": f"Bearer {issuer.token()}"}

    def test_both_are_checked(self, issuer: Issuer) -> None:
        assert asked(signature(), **self.token(issuer)).known_by is Trust.OIDC
        assert asked(signature(), BODY[::-1], **self.token(issuer)).code == "AEC-SIGNATURE-BODY"

    def test_a_signature_alone_does_not_do_there(self, issuer: Issuer) -> None:
        assert asked(signature(), **{"wsgi.input": Unread()}).code == "AEC-NO-CREDENTIALS"

    def test_with_redis_and_rq_it_does(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "rq")
        assert asked(signature()).known_by is Trust.SIGNATURE

    def test_unsigned_tasks_in_flight_are_let_in_and_counted(
        self, issuer: Issuer, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = refusals.counts().get(refusals.UNSIGNED, 0)
        with caplog.at_level(logging.WARNING):
            for _ in range(10):
                assert asked(None, **self.token(issuer)).trusted
        assert refusals.counts()[refusals.UNSIGNED] == before + 10
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 5
        assert "APPENGINE_COMPAT_SIGNATURES=require" in lines[0]

    def test_until_signatures_are_required(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURES", "require")
        found = asked(None, **self.token(issuer))
        assert (found.status, found.code) == (403, "AEC-SIGNATURE-MISSING")
        assert "accept-unsigned" in found.reason
        assert asked(signature(), **self.token(issuer)).trusted


def test_a_view_behind_the_guard_reads_the_body_that_the_door_has_read() -> None:
    app = flask.Flask(__name__)

    @app.post("/tasks/it")
    @require_task
    def view() -> bytes:
        return flask.request.get_data()

    headers = {
        "X-CloudTasks-QueueName": "q", "X-CloudTasks-TaskName": "t",
        "X-AEC-Signature": signature(url="/tasks/it"),
    }  # fmt: skip
    client = app.test_client()
    assert client.post("/tasks/it", headers=headers, data=BODY).data == BODY
    assert client.post("/tasks/it", headers=headers, data=b"other").status_code == 403


# In a process of its own: Django is configured once in each.
DJANGO_PROGRAM = """
import sys
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"])
from django.http import HttpResponse
from django.test import RequestFactory
from appengine_compat import require_task

@require_task
def view(request):
    return HttpResponse(request.body)

for body in (b"the body", b"another "):
    request = RequestFactory().post(
        "/tasks/it", data=body, content_type="application/octet-stream",
        HTTP_X_CLOUDTASKS_QUEUENAME="q", HTTP_X_CLOUDTASKS_TASKNAME="t",
        HTTP_X_AEC_SIGNATURE=sys.argv[1],
    )
    answer = view(request)
    print(answer.status_code, answer.content.decode()[:18])
"""


def test_a_django_view_does_too() -> None:
    pytest.importorskip("django")
    done = subprocess.run(
        [sys.executable, "-c", DJANGO_PROGRAM, signature(b"the body", url="/tasks/it")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["200 the body", "403 AEC-SIGNATURE-BODY"]
