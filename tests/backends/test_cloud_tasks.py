"""What goes over the wire to Cloud Tasks, and what is made of its answers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import pytest
from google.api_core import exceptions as api_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import tasks_v2
from google.protobuf import json_format

from appengine_compat import platform
from appengine_compat.backends import choice, cloud_tasks_calls, targets
from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.backends.cloud_tasks import CloudTasksBackend
from appengine_compat.core.model import QueueStats, RetryOverrides
from appengine_compat.errors import ApiError, ConfigError
from tests.contract.grpc_recorder import LOCATION, PARENT, PROJECT, Recorder, serving

QUEUE = f"{PARENT}/queues/default"
POST = TaskRequest(relative_url="/work?a=1&b=%20", payload=b"\x80\x05payload\x00\xff")
Settings = Callable[..., None]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with serving("default", "other") as recorder:
        yield recorder


@pytest.fixture
def environment(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty environment but for an emulator, project and location; and a way to add to it."""
    for name in list(os.environ):
        if name.startswith(("APPENGINE_COMPAT_", "GAE_", "K_", "KUBERNETES_", "CLOUD_RUN_")):
            monkeypatch.delenv(name)

    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    monkeypatch.setattr(cloud_tasks_calls, "FIRST_PAUSE_SECONDS", 0.001)
    set_all(
        CLOUD_TASKS_EMULATOR_HOST=recorder.address,
        APPENGINE_COMPAT_PROJECT=PROJECT,
        APPENGINE_COMPAT_LOCATION=LOCATION,
    )
    return set_all


@pytest.fixture
def backend(environment: Settings) -> CloudTasksBackend:
    return CloudTasksBackend()


def sent(recorder: Recorder) -> dict[str, Any]:
    """The one task of the only call, as JSON, without the name that was made up for it."""
    (request,) = recorder.requests("CreateTask")
    task: dict[str, Any] = json_format.MessageToDict(request.task)
    task.pop("name")
    return task


def refusal(backend: CloudTasksBackend, request: TaskRequest = POST) -> BackendError:
    (outcome,) = backend.create_tasks("default", [request])
    assert outcome.error is not None
    return outcome.error


class TestAppEngineTarget:
    def test_goes_to_the_service_and_version_that_enqueue(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(GAE_ENV="standard", GAE_SERVICE="worker", GAE_VERSION="20240101t1")
        CloudTasksBackend().create_tasks("default", [POST])
        assert sent(recorder) == {
            "appEngineHttpRequest": {
                "httpMethod": "POST",
                "relativeUri": "/work?a=1&b=%20",
                "appEngineRouting": {"service": "worker", "version": "20240101t1"},
                "body": "gAVwYXlsb2FkAP8=",
            }
        }

    @pytest.mark.parametrize(
        ("target", "routing"),
        [
            ("api", {"service": "api"}),
            ("worker", {"service": "worker"}),
            ("v2.api", {"service": "api", "version": "v2"}),
            ("v2-dot-api", {"service": "api", "version": "v2"}),
            ("0.v2.api", {"service": "api", "version": "v2", "instance": "0"}),
            ("v2-dot-api-dot-app.ew.r.appspot.com", {"service": "api", "version": "v2"}),
        ],
    )
    def test_another_target_gets_its_default_version(
        self, recorder: Recorder, environment: Settings, target: str, routing: dict[str, str]
    ) -> None:
        environment(GAE_ENV="standard", GAE_SERVICE="worker", GAE_VERSION="v1")
        CloudTasksBackend().create_tasks("default", [replace(POST, target=target)])
        assert sent(recorder)["appEngineHttpRequest"]["appEngineRouting"] == routing

    def test_the_service_of_the_request_wins_where_a_process_serves_several(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(GAE_ENV="standard", GAE_SERVICE="worker", GAE_VERSION="v1")
        backend = CloudTasksBackend()
        token = targets.SERVICE.set("api")
        try:
            backend.create_tasks("default", [POST])
        finally:
            targets.SERVICE.reset(token)
        assert sent(recorder)["appEngineHttpRequest"]["appEngineRouting"] == {"service": "api"}

    def test_a_service_with_an_address_is_an_http_target_even_on_app_engine(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(GAE_ENV="standard", APPENGINE_COMPAT_TARGETS="run=https://run.example.com")
        CloudTasksBackend().create_tasks("default", [replace(POST, target="run")])
        assert sent(recorder)["httpRequest"]["url"] == "https://run.example.com/work?a=1&b=%20"


class TestHttpTarget:
    def test_carries_url_method_body_and_token(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(
            APPENGINE_COMPAT_TARGETS="default=https://app.example.com/prefix",
            APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@p.iam.gserviceaccount.com,other@p.example",
        )
        CloudTasksBackend().create_tasks("default", [POST])
        assert sent(recorder) == {
            "httpRequest": {
                "url": "https://app.example.com/prefix/work?a=1&b=%20",
                "httpMethod": "POST",
                "body": "gAVwYXlsb2FkAP8=",
                "oidcToken": {
                    "serviceAccountEmail": "tasks@p.iam.gserviceaccount.com",
                    "audience": "https://app.example.com/prefix",
                },
            }
        }

    def test_the_audience_setting_wins(self, recorder: Recorder, environment: Settings) -> None:
        environment(
            APPENGINE_COMPAT_TARGETS="https://app.example.com",
            APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@p.iam.gserviceaccount.com",
            APPENGINE_COMPAT_AUDIENCE="my-audience",
        )
        CloudTasksBackend().create_tasks("default", [POST])
        assert sent(recorder)["httpRequest"]["oidcToken"]["audience"] == "my-audience"

    def test_an_emulator_gets_no_token_for_plain_http(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(
            APPENGINE_COMPAT_TARGETS="http://localhost:8080",
            APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@p.iam.gserviceaccount.com",
        )
        CloudTasksBackend().create_tasks("default", [POST])
        assert "oidcToken" not in sent(recorder)["httpRequest"]

    def test_an_emulator_that_issues_tokens_is_asked_for_one(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(
            APPENGINE_COMPAT_TARGETS="http://localhost:8080",
            APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@p.iam.gserviceaccount.com",
            APPENGINE_COMPAT_OIDC_ISSUER="http://localhost:8124",
        )
        CloudTasksBackend().create_tasks("default", [POST])
        assert sent(recorder)["httpRequest"]["oidcToken"] == {
            "serviceAccountEmail": "tasks@p.iam.gserviceaccount.com",
            "audience": "http://localhost:8080",
        }

    def test_headers_that_the_service_refuses_are_carried(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(APPENGINE_COMPAT_TARGETS="http://localhost:8080")
        asked_for = (
            ("X-AppEngine-Current-Namespace", "tenant"),
            ("Host", "v1.worker"),
            ("X-Reason", "one"),
            ("x-reason", "two"),
        )
        CloudTasksBackend().create_tasks("default", [replace(POST, headers=asked_for)])
        assert sent(recorder)["httpRequest"]["headers"] == {
            "X-AEC-Carried-X-AppEngine-Current-Namespace": "tenant",
            "X-AEC-Carried-Host": "v1.worker",
            "X-Reason": "one, two",
        }

    def test_an_unknown_service_names_those_known(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(APPENGINE_COMPAT_TARGETS="api=http://localhost:1,worker=http://localhost:2")
        error = refusal(CloudTasksBackend(), replace(POST, target="wroker"))
        assert error.reason is Reason.INVALID_TARGET
        assert "'wroker'" in str(error)
        assert "api, worker" in str(error)
        assert "APPENGINE_COMPAT_TARGETS" in str(error)
        assert not recorder.calls

    @pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "127.1.2.3:1", "[::1]:8080"])
    def test_googles_service_is_given_no_address_of_this_machine(
        self, environment: Settings, host: str
    ) -> None:
        environment(
            APPENGINE_COMPAT_TARGETS=f"http://{host}",
            APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@p.iam.gserviceaccount.com",
            CLOUD_TASKS_EMULATOR_HOST="",
        )
        error = refusal(CloudTasksBackend())
        assert error.reason is Reason.INVALID_TARGET
        assert f"cannot reach http://{host}" in str(error)
        assert "=ngrok" in str(error)

    def test_a_cloud_run_services_own_address_is_target_and_audience(
        self, recorder: Recorder, environment: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = "https://web-1.europe-west3.run.app"
        monkeypatch.setattr(platform, "own_url", lambda: own)
        environment(
            K_SERVICE="web",
            APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@p.iam.gserviceaccount.com",
        )
        CloudTasksBackend(client=client_of(recorder)).create_tasks("default", [POST])
        request = sent(recorder)["httpRequest"]
        assert request["url"] == f"{own}/work?a=1&b=%20"
        assert request["oidcToken"]["audience"] == own

    def test_without_a_service_account_real_cloud_tasks_is_not_asked(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(APPENGINE_COMPAT_TARGETS="https://app.example.com")
        error = refusal(CloudTasksBackend(client=client_of(recorder)))
        assert error.reason is Reason.INVALID_TARGET
        assert "APPENGINE_COMPAT_SERVICE_ACCOUNT" in str(error)
        assert not recorder.calls


class TestFields:
    def test_everything_a_task_can_have(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        eta = datetime.now(timezone.utc).replace(microsecond=123456) + timedelta(hours=1)
        retry = RetryOverrides(
            max_attempts=6,
            max_retry_duration_seconds=120.0,
            min_backoff_seconds=0.5,
            max_backoff_seconds=30.25,
            max_doublings=3,
        )
        request = replace(
            POST,
            name="my-task",
            method="PUT",
            schedule_time=eta,
            retry=retry,
            dispatch_deadline_seconds=45.5,
        )
        assert backend.create_tasks("default", [request])[0].task_id == "my-task"
        (created,) = recorder.requests("CreateTask")
        assert created.parent == QUEUE
        assert json_format.MessageToDict(created.task) == {
            "name": f"{QUEUE}/tasks/my-task",
            "appEngineHttpRequest": {
                "httpMethod": "PUT",
                "relativeUri": "/work?a=1&b=%20",
                "appEngineRouting": {"service": "default"},
                "body": "gAVwYXlsb2FkAP8=",
            },
            "scheduleTime": eta.isoformat().replace("+00:00", "Z"),
            "dispatchDeadline": "45.500s",
            "retryConfig": {
                "maxAttempts": 6,
                "maxRetryDuration": "120s",
                "minBackoff": "0.500s",
                "maxBackoff": "30.250s",
                "maxDoublings": 3,
            },
        }

    def test_retry_fields_that_are_not_set_are_not_sent(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        request = replace(POST, retry=RetryOverrides(max_attempts=1, min_backoff_seconds=0.0))
        backend.create_tasks("default", [request])
        assert sent(recorder)["retryConfig"] == {"maxAttempts": 1, "minBackoff": "0s"}

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
    def test_methods_without_payload(
        self, recorder: Recorder, backend: CloudTasksBackend, method: str
    ) -> None:
        backend.create_tasks("default", [TaskRequest(relative_url="/x?y=z", method=method)])
        assert sent(recorder)["appEngineHttpRequest"]["httpMethod"] == method
        error = refusal(backend, replace(POST, method=method))
        assert error.reason is Reason.INVALID_REQUEST
        assert method in str(error)

    def test_a_payload_with_patch_is_for_http_targets_only(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        patch = replace(POST, method="PATCH")
        assert refusal(CloudTasksBackend(), patch).reason is Reason.INVALID_REQUEST
        environment(APPENGINE_COMPAT_TARGETS="http://localhost:8080")
        CloudTasksBackend().create_tasks("default", [patch])
        assert sent(recorder)["httpRequest"]["httpMethod"] == "PATCH"

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ({"method": "PULL"}, "'PULL'"),
            ({"headers": (("X-Bad", "\ud800"),)}, "cannot be put in a message"),
            ({"relative_url": "/\ud800"}, "cannot be put in a message"),
            ({"retry": RetryOverrides(max_attempts=2**40)}, "does not fit"),
            ({"dispatch_deadline_seconds": 1e300}, "does not fit"),
        ],
    )
    def test_what_fits_no_message_is_refused_here(
        self, recorder: Recorder, backend: CloudTasksBackend, bad: dict[str, Any], said: str
    ) -> None:
        error = refusal(backend, replace(POST, **bad))
        assert error.reason is Reason.INVALID_REQUEST
        assert said in str(error)
        assert not recorder.calls

    def test_calls_say_which_queue_they_concern_and_how_long_they_wait(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        backend.create_tasks("default", [POST], timeout_seconds=120.0)
        backend.create_tasks("default", [POST], timeout_seconds=3.0)
        for call, longest in zip(recorder.calls, (10.0, 3.0), strict=True):
            parent = f"projects%2F{PROJECT}%2Flocations%2F{LOCATION}%2Fqueues%2Fdefault"
            assert call.metadata["x-goog-request-params"] == f"parent={parent}"
            assert call.timeout_seconds is not None
            assert longest - 1 < call.timeout_seconds < longest + 1


class TestTryingAgain:
    def test_a_task_without_a_name_travels_under_a_random_one(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        ids = {backend.create_tasks("default", [POST])[0].task_id for _ in range(3)}
        assert len(ids) == 3
        assert {request.task.name for request in recorder.requests("CreateTask")} == {
            f"{QUEUE}/tasks/{task_id}" for task_id in ids
        }

    @pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"])
    @pytest.mark.parametrize("after", [False, True], ids=["lost on the way", "answer lost"])
    def test_a_passing_failure_is_tried_again_and_never_doubles(
        self, recorder: Recorder, backend: CloudTasksBackend, code: str, after: bool
    ) -> None:
        recorder.fail("CreateTask", code, after=after)
        (outcome,) = backend.create_tasks("default", [POST])
        assert outcome.error is None
        assert list(recorder.tasks) == [f"{QUEUE}/tasks/{outcome.task_id}"]
        first, second = recorder.requests("CreateTask")
        assert first == second

    def test_a_callers_name_that_exists_after_a_lost_answer_is_said_to_exist(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.fail("CreateTask", "UNAVAILABLE", after=True)
        error = refusal(backend, replace(POST, name="once"))
        assert error.reason is Reason.TASK_ALREADY_EXISTS
        assert "earlier try" in str(error)
        assert len(recorder.tasks) == 1

    def test_what_does_not_pass_is_not_tried_again(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.fail("CreateTask", "PERMISSION_DENIED")
        assert refusal(backend).reason is Reason.PERMISSION_DENIED
        assert len(recorder.calls) == 1

    def test_it_ends_after_some_tries(self, recorder: Recorder, backend: CloudTasksBackend) -> None:
        recorder.fail("CreateTask", "UNAVAILABLE", "try later", times=100)
        error = refusal(backend)
        assert error.reason is Reason.TRANSIENT
        assert "try later" in str(error)
        assert 2 <= len(recorder.calls) <= 10

    def test_it_ends_with_the_callers_time(
        self, recorder: Recorder, backend: CloudTasksBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cloud_tasks_calls, "FIRST_PAUSE_SECONDS", 60.0)
        recorder.fail("CreateTask", "UNAVAILABLE", times=100)
        (outcome,) = backend.create_tasks("default", [POST], timeout_seconds=10.0)
        assert outcome.error is not None
        assert len(recorder.calls) == 1

    def test_a_batch_whose_answer_was_lost_does_not_double(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.fail("BatchCreateTasks", "UNAVAILABLE", after=True)
        outcomes = backend.create_tasks("default", [POST] * 3)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert len(recorder.tasks) == 3
        first, second = recorder.requests("BatchCreateTasks")
        assert first.request_id == second.request_id != ""

    def test_a_lost_batch_does_not_double_where_request_ids_are_not_known(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.fail("BatchCreateTasks", "UNAVAILABLE", after=True)
        recorder.operations = _Forgetful()
        outcomes = backend.create_tasks("default", [POST] * 3)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert len(recorder.tasks) == 3

    def test_items_that_failed_for_a_passing_reason_are_sent_again_alone(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.item_faults = {1: ApiError("UNAVAILABLE", "busy")}
        outcomes = backend.create_tasks("default", [POST] * 3)
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert len(recorder.tasks) == 3
        assert [len(batch.requests) for batch in recorder.requests("BatchCreateTasks")] == [3, 1]

    def test_what_was_created_is_told_though_the_rest_could_not_be_sent_again(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.item_faults = {1: ApiError("UNAVAILABLE", "busy")}
        recorder.fail("BatchCreateTasks", "PERMISSION_DENIED", "no more", from_call=2)
        outcomes = backend.create_tasks("default", [POST] * 3)
        assert [outcome.error and outcome.error.reason for outcome in outcomes] == [
            None,
            Reason.PERMISSION_DENIED,
            None,
        ]
        assert {f"{QUEUE}/tasks/{outcomes[n].task_id}" for n in (0, 2)} == set(recorder.tasks)

    def test_what_was_deleted_is_told_though_a_later_part_failed(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        backend.create_tasks("default", [replace(POST, name="task-0")])
        recorder.fail("BatchDeleteTasks", "PERMISSION_DENIED", from_call=2)
        outcomes = backend.delete_tasks("default", [f"task-{n}" for n in range(1002)])
        reasons = [outcome.error and outcome.error.reason for outcome in outcomes]
        assert reasons == [None] + [Reason.UNKNOWN_TASK] * 999 + [Reason.PERMISSION_DENIED] * 2


class _Forgetful(dict[str, Any]):
    def __contains__(self, key: object) -> bool:
        return False


class TestBatches:
    def test_each_task_has_its_own_fate(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.item_faults = {
            1: ApiError("PERMISSION_DENIED", "no"),
            3: ApiError(
                "ALREADY_EXISTS",
                'Requested entity already exists [detail: "[ORIGINAL ERROR] ExecutorError::1015: '
                'apphosting::ExecutorServiceError::TOMBSTONED_TASK"]',
            ),
        }
        requests = [replace(POST, name=f"task-{number}") for number in range(5)]
        requests[4] = replace(requests[4], payload=b"x" * 1_048_600)
        outcomes = backend.create_tasks("default", requests)
        assert [outcome.task_id for outcome in outcomes] == [f"task-{n}" for n in range(5)]
        assert [outcome.error and outcome.error.reason for outcome in outcomes] == [
            None,
            Reason.PERMISSION_DENIED,
            None,
            Reason.TOMBSTONED_TASK,
            Reason.TASK_TOO_LARGE,
        ]
        assert sorted(recorder.tasks) == [f"{QUEUE}/tasks/task-0", f"{QUEUE}/tasks/task-2"]

    def test_an_operation_that_takes_time_is_waited_for(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.slow_operations = 2
        outcomes = backend.create_tasks("default", [POST] * 2)
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert len(recorder.requests("GetOperation")) == 2

    def test_an_operation_that_never_ends_is_told(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.slow_operations = 10_000
        with pytest.raises(BackendError, match="has not finished") as caught:
            backend.create_tasks("default", [POST] * 2, timeout_seconds=0.3)
        assert caught.value.reason is Reason.TRANSIENT

    def test_more_than_100_are_refused(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        with pytest.raises(BackendError, match="101 tasks"):
            backend.create_tasks("default", [POST] * 101)
        assert not recorder.calls

    def test_more_than_1000_deletes_go_in_parts(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        outcomes = backend.delete_tasks("default", [f"task-{n}" for n in range(1001)])
        assert len(outcomes) == 1001
        assert [len(r.names) for r in recorder.requests("BatchDeleteTasks")] == [1000, 1]

    def test_nothing_to_do_is_no_call(self, recorder: Recorder, backend: CloudTasksBackend) -> None:
        assert backend.create_tasks("default", []) == []
        assert backend.delete_tasks("default", []) == []
        assert not recorder.calls


TEXTS = [
    ("NOT_FOUND", "Queue does not exist. If you just", Reason.UNKNOWN_QUEUE, "queues create defa"),
    ("FAILED_PRECONDITION", "Queue does not exist.", Reason.UNKNOWN_QUEUE, "gcloud tasks queues"),
    ("NOT_FOUND", "Service account x@y not found", Reason.INVALID_REQUEST, "_SERVICE_ACCOUNT"),
    ("INVALID_ARGUMENT", "Task size too large", Reason.TASK_TOO_LARGE, ""),
    ("INVALID_ARGUMENT", "The Task.scheduleTime, x, is too", Reason.INVALID_ETA, ""),
    (
        "INVALID_ARGUMENT",
        "Task.dispatchDeadline must be between [15s, 30m].",
        Reason.INVALID_DISPATCH_DEADLINE,
        "",
    ),
    ("INVALID_ARGUMENT", 'Task ID "a b" can contain', Reason.INVALID_TASK_NAME, ""),
    ("INVALID_ARGUMENT", "Queue name must be formatted", Reason.INVALID_QUEUE_NAME, ""),
    ("INVALID_ARGUMENT", "HttpRequest.url is required.", Reason.INVALID_URL, ""),
    (
        "INVALID_ARGUMENT",
        "HttpRequest.url must start with 'https://' for request with",
        Reason.INVALID_URL,
        "APPENGINE_COMPAT_TARGETS",
    ),
    (
        "INVALID_ARGUMENT",
        "Location 'X' is not a valid location. Use ListLocations",
        Reason.INVALID_REQUEST,
        "APPENGINE_COMPAT_LOCATION",
    ),
    ("INVALID_ARGUMENT", "anything else", Reason.INVALID_REQUEST, ""),
    ("PERMISSION_DENIED", "lacks x", Reason.PERMISSION_DENIED, "roles/cloudtasks.enqueuer"),
    (
        "PERMISSION_DENIED",
        'The principal lacks "iam.serviceAccounts.actAs"',
        Reason.PERMISSION_DENIED,
        "roles/iam.serviceAccountUser",
    ),
    (
        "PERMISSION_DENIED",
        "Cloud Tasks API has not been used in project 1 before or it is disabled.",
        Reason.PERMISSION_DENIED,
        "services enable",
    ),
    ("UNAUTHENTICATED", "no token", Reason.PERMISSION_DENIED, "application-default login"),
    ("CANCELLED", "gone", Reason.TRANSIENT, ""),
    ("UNIMPLEMENTED", "what?", Reason.INTERNAL, "does not have this operation"),
    ("DATA_LOSS", "?", Reason.INTERNAL, ""),
    ("UNKNOWN", "?", Reason.INTERNAL, ""),
]


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "text", "reason", "remedy"), TEXTS, ids=[f"{t[0]}-{t[1][:18]}" for t in TEXTS]
    )
    def test_each_answer_has_its_meaning_and_remedy(
        self,
        recorder: Recorder,
        backend: CloudTasksBackend,
        code: str,
        text: str,
        reason: Reason,
        remedy: str,
    ) -> None:
        recorder.fail("CreateTask", code, text)
        error = refusal(backend, replace(POST, name="my-task"))
        assert error.reason is reason
        assert (error.queue, error.task) == ("default", "my-task")
        for part in (QUEUE, "my-task", "APPENGINE_COMPAT_LOCATION", code, text.rstrip("."), remedy):
            assert part in str(error)

    @pytest.mark.parametrize("word", ["UNKNOWN_QUEUE", "TASK_TOO_LARGE", "INVALID_TASK_NAME"])
    def test_the_executors_own_word_wins(
        self, recorder: Recorder, backend: CloudTasksBackend, word: str
    ) -> None:
        recorder.fail("CreateTask", "INTERNAL", f"x ExecutorServiceError::{word} y", times=9)
        assert refusal(backend).reason is Reason[word]

    def test_quota(self, recorder: Recorder, backend: CloudTasksBackend) -> None:
        recorder.fail("CreateTask", "RESOURCE_EXHAUSTED", "Quota exceeded", times=9)
        error = refusal(backend)
        assert error.reason is Reason.TRANSIENT
        assert "quota" in str(error)

    def test_nobody_at_the_emulators_address(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        environment(CLOUD_TASKS_EMULATOR_HOST="127.0.0.1:1")
        (outcome,) = CloudTasksBackend().create_tasks("default", [POST], timeout_seconds=0.2)
        assert outcome.error is not None
        assert outcome.error.reason is Reason.TRANSIENT
        assert "127.0.0.1:1" in str(outcome.error)
        assert "CLOUD_TASKS_EMULATOR_HOST" in str(outcome.error)

    def test_no_credentials(
        self, recorder: Recorder, environment: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CLOUD_TASKS_EMULATOR_HOST")
        environment(GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json", GAE_ENV="standard")
        error = refusal(CloudTasksBackend())
        assert error.reason is Reason.PERMISSION_DENIED
        assert "/nowhere/key.json" in str(error)
        assert "gcloud auth application-default login" in str(error)

    def test_a_batch_that_fails_as_a_whole_raises(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        recorder.fail("BatchCreateTasks", "PERMISSION_DENIED")
        with pytest.raises(BackendError, match=r"roles/cloudtasks\.enqueuer") as caught:
            backend.create_tasks("default", [POST] * 2)
        assert caught.value.reason is Reason.PERMISSION_DENIED

    @pytest.mark.parametrize(
        ("rpc", "call", "role"),
        [
            ("BatchDeleteTasks", lambda b: b.delete_tasks("default", ["a"]), "taskDeleter"),
            ("PurgeQueue", lambda b: b.purge_queue("default"), "queueAdmin"),
            ("GetQueue", lambda b: b.queue_stats(["default"]), "viewer"),
        ],
    )
    def test_each_operation_names_the_role_it_needs(
        self,
        recorder: Recorder,
        backend: CloudTasksBackend,
        rpc: str,
        call: Callable[[CloudTasksBackend], object],
        role: str,
    ) -> None:
        recorder.fail(rpc, "PERMISSION_DENIED")
        with pytest.raises(BackendError, match=rf"roles/cloudtasks\.{role}"):
            call(backend)

    def test_a_project_that_is_not_known_is_an_error_and_no_guess(
        self, recorder: Recorder, environment: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("APPENGINE_COMPAT_PROJECT")
        monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
        environment(GCE_METADATA_HOST="127.0.0.1:1")
        with pytest.raises(ConfigError, match="APPENGINE_COMPAT_PROJECT"):
            CloudTasksBackend()


class TestStatistics:
    def test_they_come_from_the_beta_face(
        self, recorder: Recorder, backend: CloudTasksBackend
    ) -> None:
        from google.cloud import tasks_v2beta3

        stats = tasks_v2beta3.QueueStats.pb()(
            tasks_count=2**40,
            executed_last_minute_count=7,
            concurrent_dispatches_count=3,
            effective_execution_rate=1.5,
        )
        oldest = datetime(2024, 2, 29, 12, 0, 0, 250000, tzinfo=timezone.utc)
        stats.oldest_estimated_arrival_time.FromDatetime(oldest)
        recorder.stats[QUEUE] = stats
        assert backend.queue_stats(["other", "default"]) == [
            QueueStats(),
            QueueStats(
                tasks_count=2**40,
                oldest_arrival_time=oldest,
                executed_last_minute_count=7,
                concurrent_dispatches_count=3,
                effective_execution_rate=1.5,
            ),
        ]
        assert [list(r.read_mask.paths) for r in recorder.requests("GetQueue")] == [["stats"]] * 2


def client_of(recorder: Recorder, kind: type = tasks_v2.CloudTasksClient) -> Any:
    transport = tasks_v2.CloudTasksClient.get_transport_class("grpc")
    return kind(transport=transport(channel=grpc.insecure_channel(recorder.address)))


class TestGivenClient:
    def test_its_channel_is_used(self, recorder: Recorder, environment: Settings) -> None:
        environment(APPENGINE_COMPAT_TARGETS="appengine", CLOUD_TASKS_EMULATOR_HOST="127.0.0.1:1")
        backend = CloudTasksBackend(client=client_of(recorder))
        assert backend.create_tasks("default", [POST])[0].error is None
        assert len(recorder.tasks) == 1

    def test_a_class_of_the_callers_is_called_by_its_methods(
        self, recorder: Recorder, environment: Settings
    ) -> None:
        seen: list[str] = []

        class Client(tasks_v2.CloudTasksClient):
            def create_task(self, *args: Any, **kwargs: Any) -> Any:
                seen.append(kwargs["request"].parent)
                return super().create_task(*args, **kwargs)

        environment(APPENGINE_COMPAT_TARGETS="appengine")
        backend = CloudTasksBackend(client=client_of(recorder, Client))
        assert backend.create_tasks("default", [POST])[0].error is None
        assert [o.error for o in backend.create_tasks("default", [POST] * 2)] == [None, None]
        assert seen == [QUEUE]
        assert len(recorder.tasks) == 3
        backend.purge_queue("default")
        assert not recorder.tasks
        recorder.fail("CreateTask", "PERMISSION_DENIED", "no")
        assert refusal(backend).reason is Reason.PERMISSION_DENIED

    def test_a_mock_of_a_client_is_one(self, environment: Settings) -> None:
        environment(APPENGINE_COMPAT_TARGETS="appengine")
        client = mock.create_autospec(tasks_v2.CloudTasksClient, instance=True)
        (outcome,) = choice.as_backend(client).create_tasks("default", [POST])
        assert outcome.error is None
        request = client.create_task.call_args.kwargs["request"]
        assert request.parent == QUEUE
        assert request.task.app_engine_http_request.body == POST.payload

    @pytest.mark.parametrize(
        ("exception", "text", "reason"),
        [
            (api_exceptions.Conflict, "there", Reason.TASK_ALREADY_EXISTS),
            (api_exceptions.BadRequest, "Task size too large", Reason.TASK_TOO_LARGE),
            (api_exceptions.Forbidden, "no", Reason.PERMISSION_DENIED),
            (api_exceptions.NotFound, "Queue does not exist.", Reason.UNKNOWN_QUEUE),
            (api_exceptions.Unauthorized, "who?", Reason.PERMISSION_DENIED),
        ],
    )
    def test_over_rest_only_http_codes_tell(
        self,
        environment: Settings,
        exception: Callable[[str], Exception],
        text: str,
        reason: Reason,
    ) -> None:
        class Client(tasks_v2.CloudTasksClient):
            def create_task(self, *args: Any, **kwargs: Any) -> Any:
                raise exception(text)

        environment(APPENGINE_COMPAT_TARGETS="appengine")
        client = Client(transport="rest", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
        error = refusal(CloudTasksBackend(client=client), replace(POST, name="n"))
        assert error.reason is reason


def test_a_child_process_makes_its_own_channel(recorder: Recorder, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys
        from appengine_compat.backends.base import TaskRequest
        from appengine_compat.backends.choice import current

        def enqueue(name):
            request = TaskRequest(relative_url="/x", name=name)
            (outcome,) = current().create_tasks("default", [request], timeout_seconds=20)
            return 0 if outcome.error is None else 1

        assert enqueue("parent-before") == 0
        child = os.fork()
        if child == 0:
            os._exit(enqueue("child"))
        assert enqueue("parent-after") == 0
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    environ = dict(os.environ) | {
        "CLOUD_TASKS_EMULATOR_HOST": recorder.address,
        "APPENGINE_COMPAT_PROJECT": PROJECT,
        "APPENGINE_COMPAT_LOCATION": LOCATION,
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        cwd=tmp_path,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(name.rpartition("/")[2] for name in recorder.tasks) == [
        "child",
        "parent-after",
        "parent-before",
    ]
