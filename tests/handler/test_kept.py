"""A task that failed for good is kept: nothing that is needed to run it again is lost."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
from typing import Any

import pytest

import appengine_compat
from appengine_compat.core.in_process import ATTEMPT_KEY, Attempt
from appengine_compat.errors import PayloadError
from appengine_compat.handler import kept

CALL = pickle.dumps((print, ("x", 1), {}))
MAX_LOG_ENTRY_BYTES = 256 * 1024


def environ(payload: bytes | None = CALL, **changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/_ah/queue/deferred",
        "QUERY_STRING": "a=1",
        "CONTENT_TYPE": "application/octet-stream",
        "HTTP_X_APPENGINE_QUEUENAME": "mail",
        "HTTP_X_APPENGINE_TASKNAME": "t1",
        "HTTP_X_APPENGINE_TASKRETRYCOUNT": "4",
        "HTTP_X_REASON": "test",
        **changes,
        **({} if payload is None else {kept.PAYLOAD_KEY: payload}),
    }


def failure() -> Exception:
    try:
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise RuntimeError("given up") from cause
    except RuntimeError as error:
        return error


def logged(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (record,) = [r for r in caplog.records if r.name == "appengine_compat.kept"]
    assert record.levelno == logging.ERROR
    line: dict[str, Any] = json.loads(record.getMessage())
    return line


class TestWhatIsKept:
    def test_everything_that_a_replay_needs(self) -> None:
        task = kept.keep(environ(), failure())
        assert (task.queue, task.task_name, task.attempts) == ("mail", "t1", 5)
        assert (task.method, task.url) == ("POST", "/app/_ah/queue/deferred?a=1")
        assert task.payload == CALL
        assert task.function == "print('x', 1)"
        assert task.headers["X-Reason"] == "test"
        assert task.headers["Content-Type"] == "application/octet-stream"

    def test_the_error_and_all_of_its_traceback(self) -> None:
        task = kept.keep(environ(), failure())
        assert task.error == "KeyError: 'the cause'"
        assert "RuntimeError: given up" in task.traceback
        assert "KeyError: 'the cause'" in task.traceback

    def test_the_headers_of_cloud_tasks_too(self) -> None:
        task = kept.keep(
            {"HTTP_X_CLOUDTASKS_QUEUENAME": "q", "HTTP_X_CLOUDTASKS_TASKNAME": "t"}, failure()
        )
        assert (task.queue, task.task_name, task.payload) == ("q", "t", None)

    @pytest.mark.parametrize(
        "header",
        [
            "AUTHORIZATION", "COOKIE", "PROXY_AUTHORIZATION", "X_AEC_LOCAL_TOKEN",
            "X_APPENGINE_API_TICKET", "X_SERVERLESS_AUTHORIZATION", "X_GOOG_IAP_JWT_ASSERTION",
        ],
    )  # fmt: skip
    def test_but_no_credentials(self, header: str, caplog: pytest.LogCaptureFixture) -> None:
        task = kept.keep(environ(**{"HTTP_" + header: "the secret"}), failure())
        assert "the secret" not in str(task)
        assert "the secret" not in caplog.text

    def test_a_path_as_it_was_sent(self) -> None:
        task = kept.keep(environ(SCRIPT_NAME="", PATH_INFO="/a b/caf\xc3\xa9"), failure())
        assert task.url == "/a%20b/caf%C3%A9?a=1"

    def test_a_payload_that_cannot_be_read(self) -> None:
        task = kept.keep(environ(b"\x00nonsense"), failure())
        assert (task.payload, task.function) == (b"\x00nonsense", "")


class TestInTheLog:
    def test_one_line_of_json_that_agents_read_as_a_structured_entry(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept.keep(environ(), failure())
        line = logged(caplog)
        assert line["severity"] == "ERROR"
        assert "the task t1 of the queue mail" in line["message"]
        assert "appengine-compat tasks replay" in line["message"]
        assert line[kept.RECORD_KEY]["payload_base64"] == base64.b64encode(CALL).decode()

    @pytest.mark.parametrize(
        "before",
        ["", "ERROR:appengine_compat.kept:", "2026-01-01 12:00:00 [ERROR] "],
    )
    def test_it_is_read_back_whole(self, caplog: pytest.LogCaptureFixture, before: str) -> None:
        task = kept.keep(environ(), failure())
        assert kept.read_record(before + json.dumps(logged(caplog))) == task

    def test_it_is_read_back_from_an_entry_of_cloud_logging(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = kept.keep(environ(), failure())
        assert kept.read_record(json.dumps({"jsonPayload": logged(caplog)}, indent=2)) == task

    def test_a_large_payload_is_compressed_where_that_helps(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        payload = pickle.dumps((print, ("x" * 900_000,), {}))
        task = kept.keep(environ(payload), failure())
        assert len(json.dumps(logged(caplog))) < 20_000
        assert kept.read_record(json.dumps(logged(caplog))) == task

    @pytest.mark.parametrize("size", [150_000, 184_000, 190_000, 300_000, 1_000_000])
    def test_it_fits_a_log_entry_whatever_the_payload(
        self, caplog: pytest.LogCaptureFixture, size: int
    ) -> None:
        payload = os.urandom(size)
        huge = {f"HTTP_X_LONG_{number}": "x" * 4000 for number in range(50)}
        kept.keep(environ(payload, **huge), failure())
        line = logged(caplog)
        assert len(json.dumps(line).encode()) < MAX_LOG_ENTRY_BYTES
        read = kept.from_record(line)
        assert read.payload_bytes == size
        if size < 170_000:
            assert read.payload == payload
        if read.payload is None:
            assert "SHA-256 only" in line["message"]
            assert "on_permanent_failure" in line["message"]
            assert len(read.payload_sha256) == 64

    def test_a_record_that_was_cut_or_changed_is_refused(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept.keep(environ(), failure())
        line = logged(caplog)
        for text in (json.dumps(line)[:-20], "{}", "no brace", '{"jsonPayload": {"a": 1}}'):
            with pytest.raises(PayloadError, match="no record of a kept task"):
                kept.read_record(text)
        line[kept.RECORD_KEY]["payload_base64"] = base64.b64encode(b"other").decode()
        with pytest.raises(PayloadError, match="SHA-256 differs"):
            kept.from_record(line)
        line[kept.RECORD_KEY]["payload_base64"] = "%%%"
        with pytest.raises(PayloadError, match="damaged"):
            kept.from_record(line)


class TestInTheDatabase:
    def test_what_is_kept_there_is_not_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        taken: list[str] = []
        attempt = Attempt(lambda traceback: taken.append(traceback) is None)
        task = kept.keep(environ(**{ATTEMPT_KEY: attempt}), failure())
        assert taken == [task.traceback]
        assert not caplog.records

    def test_what_is_not_is(self, caplog: pytest.LogCaptureFixture) -> None:
        kept.keep(environ(**{ATTEMPT_KEY: Attempt(lambda traceback: False)}), failure())
        assert logged(caplog)[kept.RECORD_KEY]["task_name"] == "t1"

    def test_a_full_disk_loses_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def full(traceback: str) -> bool:
            raise OSError("no space left on device")

        task = kept.keep(environ(**{ATTEMPT_KEY: Attempt(full)}), failure())
        assert "no space left on device" in caplog.text
        assert kept.read_record(caplog.records[-1].getMessage()) == task


class TestCallbacks:
    def test_are_registered_from_the_package(self) -> None:
        assert appengine_compat.on_permanent_failure is kept.on_permanent_failure

    def test_are_called_with_each_task(self) -> None:
        told: list[kept.KeptTask] = []

        @kept.on_permanent_failure
        def tell(task: kept.KeptTask) -> None:
            told.append(task)

        try:
            kept.on_permanent_failure(tell)
            task = kept.keep(environ(), failure())
            assert told == [task]
        finally:
            kept.forget_callback(tell)
        kept.keep(environ(), failure())
        assert len(told) == 1

    def test_one_that_fails_is_logged_and_disturbs_nobody(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[kept.KeptTask] = []

        def breaking(task: kept.KeptTask) -> None:
            raise RuntimeError("the callback broke")

        kept.on_permanent_failure(breaking)
        kept.on_permanent_failure(told.append)
        try:
            kept.keep(environ(), failure())
        finally:
            kept.forget_callback(breaking)
            kept.forget_callback(told.append)
        assert len(told) == 1
        assert "the callback broke" in caplog.text
