"""The REST door: paths, query parameters, JSON as clients write it, and errors as Google's."""

from __future__ import annotations

import base64

import pytest

from appengine_compat.errors import StoreError
from tests.local.fronts.conftest import LOCATION, QUEUE, TASKS, Rest

HTTP = {"httpRequest": {"url": "http://localhost:9/"}}


def named(task_id: str, **task) -> dict:
    return {"task": {"name": f"{QUEUE}/tasks/{task_id}", **HTTP, **task}}


def body_of(rest: Rest, task_id: str) -> bytes:
    task = rest.json("GET", f"{TASKS}/{task_id}?responseView=FULL")
    return base64.b64decode(task["httpRequest"].get("body", ""))


# --- forms of values -------------------------------------------------------------------------


def test_a_task_comes_back_in_productions_shape(rest: Rest) -> None:
    made = rest.json(
        "POST", TASKS, named("a", httpRequest={"url": "http://h/", "httpMethod": "GET"})
    )
    assert made == {
        "name": f"{QUEUE}/tasks/a",
        "httpRequest": {
            "url": "http://h/",
            "httpMethod": "GET",
            "headers": {"User-Agent": "Google-Cloud-Tasks"},
        },
        "scheduleTime": "2026-09-21T14:13:20.250Z",
        "createTime": "2026-09-21T14:13:20Z",
        "dispatchDeadline": "600s",
        "view": "BASIC",
    }


def test_a_queue_comes_back_in_productions_shape(rest: Rest) -> None:
    assert rest.json("GET", f"/v2/{QUEUE}") == {
        "name": QUEUE,
        "rateLimits": {
            "maxDispatchesPerSecond": 500,
            "maxBurstSize": 100,
            "maxConcurrentDispatches": 1000,
        },
        "retryConfig": {
            "maxAttempts": 100,
            "minBackoff": "0.100s",
            "maxBackoff": "3600s",
            "maxDoublings": 16,
        },
        "state": "RUNNING",
    }


def test_int64_is_text_and_int32_a_number(rest: Rest) -> None:
    target = {"uriOverride": {"host": "h", "port": "8080"}}
    updated = rest.json("PATCH", f"/v2/{QUEUE}?updateMask=httpTarget", {"httpTarget": target})
    assert updated["httpTarget"]["uriOverride"]["port"] == "8080"
    updated = rest.json(
        "PATCH", f"/v2/{QUEUE}", {"httpTarget": {"uriOverride": {"host": "h", "port": 81}}}
    )
    assert updated["httpTarget"]["uriOverride"]["port"] == "81"


@pytest.mark.parametrize("method", ["PUT", 4])
def test_24_enums_are_read_as_names_and_numbers(rest: Rest, method) -> None:
    request = {"url": "http://h/", "httpMethod": method}
    made = rest.json("POST", TASKS, named("a", httpRequest=request))
    assert made["httpRequest"]["httpMethod"] == "PUT"


@pytest.mark.parametrize("parameter", ["%24alt", "$alt", "alt"])
def test_24_enums_are_written_as_the_caller_asks(rest: Rest, parameter: str) -> None:
    plain = rest.json("GET", f"/v2/{QUEUE}?{parameter}=json")
    numbers = rest.json("GET", f"/v2/{QUEUE}?{parameter}=json%3Benum-encoding%3Dint")
    assert (plain["state"], numbers["state"]) == ("RUNNING", 1)


@pytest.mark.parametrize("view", ["FULL", "2"])
@pytest.mark.parametrize("parameter", ["responseView", "response_view"])
def test_query_parameters_hold_enums_too(rest: Rest, parameter: str, view: str) -> None:
    rest.json("POST", TASKS, named("a", httpRequest={"url": "http://h/", "body": "YQ=="}))
    found = rest.json("GET", f"{TASKS}/a?{parameter}={view}")
    assert (found["view"], found["httpRequest"]["body"]) == ("FULL", "YQ==")


@pytest.mark.parametrize("text", ["Pz8/Pj4+fn5+", "Pz8_Pj4-fn5-", "Pz8_Pj4+fn5-"])
def test_24_both_alphabets_of_base64_are_read(rest: Rest, text: str) -> None:
    rest.json("POST", TASKS, named("a", httpRequest={"url": "http://h/", "body": text}))
    assert body_of(rest, "a") == b"???>>>~~~~"[:9]


@pytest.mark.parametrize("text", ["YWI=", "YWI"])
def test_padding_may_be_left_out(rest: Rest, text: str) -> None:
    rest.json("POST", TASKS, named("a", httpRequest={"url": "http://h/", "body": text}))
    assert body_of(rest, "a") == b"ab"


def test_names_may_be_snake_case_and_null_is_nothing(rest: Rest) -> None:
    task = {
        "name": f"{QUEUE}/tasks/a",
        "http_request": {"url": "http://h/", "http_method": "PUT", "headers": None},
        "dispatch_deadline": "15.5s",
        "appEngineHttpRequest": None,
    }
    made = rest.json("POST", TASKS, {"task": task, "response_view": "FULL"})
    assert made["dispatchDeadline"] == "15.500s"
    assert made["view"] == "FULL"


@pytest.mark.parametrize(
    "mask",
    [
        "retryConfig.maxAttempts,rateLimits.maxConcurrentDispatches",
        "retry_config.max_attempts%2Crate_limits.max_concurrent_dispatches",
        "retryConfig.maxAttempts&updateMask=rateLimits.maxConcurrentDispatches",
    ],
)
def test_masks_are_camel_or_snake_case(rest: Rest, mask: str) -> None:
    body = {"retryConfig": {"maxAttempts": 7, "maxDoublings": 1}}
    updated = rest.json("PATCH", f"/v2/{QUEUE}?updateMask={mask}", body)
    assert updated["retryConfig"]["maxAttempts"] == 7
    assert updated["retryConfig"]["maxDoublings"] == 16


def test_an_update_needs_no_name_in_its_body(rest: Rest) -> None:
    path = f"/v2/{LOCATION}/queues/new?updateMask=rateLimits"
    made = rest.json("PATCH", path, {"rateLimits": {"maxDispatchesPerSecond": 0.5}})
    assert made["name"] == f"{LOCATION}/queues/new"
    assert made["rateLimits"]["maxDispatchesPerSecond"] == 0.5


def test_a_delete_answers_an_empty_object(rest: Rest) -> None:
    rest.json("POST", TASKS, named("a"))
    assert rest.json("DELETE", f"{TASKS}/a") == {}
    assert rest.json("DELETE", f"/v2/{QUEUE}") == {}


def test_empty_lists_are_left_out(rest: Rest) -> None:
    assert rest.json("GET", TASKS) == {}


def test_verbs_take_an_empty_body_or_none(rest: Rest) -> None:
    assert rest.json("POST", f"/v2/{QUEUE}:pause", {})["state"] == "PAUSED"
    assert rest.json("POST", f"/v2/{QUEUE}:resume")["state"] == "RUNNING"
    assert "purgeTime" in rest.json("POST", f"/v2/{QUEUE}:purge", {})


def test_a_batch_answers_with_its_operation_written_out(rest: Rest) -> None:
    requests = [{"parent": QUEUE, **named("a")}, {"parent": QUEUE, "task": {}}]
    operation = rest.json("POST", f"{TASKS}:batchCreate", {"requests": requests})
    assert operation["done"] is True
    kind = "type.googleapis.com/google.cloud.tasks.v2.BatchCreateTasks"
    assert operation["metadata"]["@type"] == f"{kind}Metadata"
    assert operation["metadata"]["state"] == "PARTIALLY_SUCCEEDED"
    assert operation["metadata"]["failedRequests"]["1"]["code"] == 3
    assert operation["response"]["@type"] == f"{kind}Response"
    assert [task["name"] for task in operation["response"]["tasks"]] == [f"{QUEUE}/tasks/a"]
    assert rest.json("GET", f"/v2/{operation['name']}") == operation
    deleted = rest.json("POST", f"{TASKS}:batchDelete", {"names": [f"{QUEUE}/tasks/a"]})
    assert deleted["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}


def test_a_project_of_a_domain_has_a_colon_in_its_name(rest: Rest) -> None:
    location = "projects/example.com:p/locations/us-central1"
    name = f"{location}/queues/q"
    for path in (f"/v2/{location}/queues", f"/v2/{location}/queues".replace(":", "%3A")):
        rest("POST", path, {"name": name})
        assert rest.json("GET", f"/v2/{name}")["name"] == name
    assert rest.json("POST", f"/v2/{name}:pause", {})["state"] == "PAUSED"
    assert rest.json("GET", "/v2/projects/example.com:p/locations")["locations"]


def test_the_parameters_of_every_google_api_say_nothing(rest: Rest) -> None:
    query = "key=k&prettyPrint=false&%24.xgafv=2&quotaUser=u&fields=name&access_token=t"
    assert rest.json("GET", f"/v2/{QUEUE}?{query}")["name"] == QUEUE


# --- BufferTask ------------------------------------------------------------------------------


@pytest.fixture
def routed(rest: Rest) -> Rest:
    override = {"host": "h.example.com", "port": 81, "pathOverride": {"path": "/p"}}
    target = {"uriOverride": {**override, "scheme": "HTTP"}, "httpMethod": "PUT"}
    rest.json("PATCH", f"/v2/{QUEUE}", {"httpTarget": target})
    return rest


def test_a_body_alone_becomes_a_task_for_where_its_queue_routes(routed: Rest) -> None:
    body = {"contentType": "text/plain", "data": base64.b64encode(b"hello").decode()}
    made = routed.json("POST", f"{TASKS}/mine:buffer", {"body": body})["task"]
    assert made["name"] == f"{QUEUE}/tasks/mine"
    assert made["httpRequest"]["url"] == "http://h.example.com:81/p"
    assert made["httpRequest"]["httpMethod"] == "PUT"
    assert made["httpRequest"]["headers"]["Content-Type"] == "text/plain"
    assert body_of(routed, "mine") == b"hello"


@pytest.mark.parametrize("path", [f"{TASKS}:buffer", f"{TASKS}/:buffer"])
def test_the_service_chooses_an_id_where_the_path_has_none(routed: Rest, path: str) -> None:
    made = routed.json("POST", path)["task"]
    assert made["name"].rpartition("/")[2].isdigit()


def test_a_queue_that_routes_nowhere_buffers_nothing(rest: Rest) -> None:
    error = rest.refusal("POST", f"{TASKS}:buffer", {})
    assert error["status"] == "FAILED_PRECONDITION"
    assert QUEUE in error["message"]


def test_a_buffer_takes_nothing_but_a_body(routed: Rest) -> None:
    assert "bodies" in routed.refusal("POST", f"{TASKS}:buffer", {"bodies": {}})["message"]
    assert "colour" in routed.refusal("POST", f"{TASKS}:buffer?colour=red", {})["message"]
    assert routed.refusal("POST", f"{TASKS}:buffer", [])["status"] == "INVALID_ARGUMENT"
    assert (
        "body.data" in routed.refusal("POST", f"{TASKS}:buffer", {"body": {"data": "!"}})["message"]
    )


# --- refusals --------------------------------------------------------------------------------


def test_an_error_has_googles_shape(rest: Rest) -> None:
    path = f"/v2/{LOCATION}/queues/missing"
    assert rest("GET", path).status == 404
    assert rest.refusal("GET", path) == {
        "code": 404,
        "status": "NOT_FOUND",
        "message": "Queue does not exist. If you just created the queue, wait at least a minute "
        "for the queue to initialize.",
    }


def test_an_unknown_field_is_refused_by_name(rest: Rest) -> None:
    error = rest.refusal("POST", TASKS, {"task": {**HTTP, "colour": 1}, "size": 2})
    inner = "Invalid JSON payload received. Unknown name \"colour\" at 'task': Cannot find field."
    outer = 'Invalid JSON payload received. Unknown name "size": Cannot find field.'
    assert error == {
        "code": 400,
        "status": "INVALID_ARGUMENT",
        "message": f"{inner}\n{outer}",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [
                    {"field": "task", "description": inner},
                    {"description": outer},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("task", "place", "kind"),
    [
        ({"httpRequest": {"url": 5}}, "task.http_request.url", "TYPE_STRING"),
        ({"httpRequest": {"url": "\ud800"}}, "task.http_request.url", "TYPE_STRING"),
        ({"httpRequest": {"body": "a!b"}}, "task.http_request.body", "TYPE_BYTES"),
        ({"httpRequest": {"body": 5}}, "task.http_request.body", "TYPE_BYTES"),
        ({"httpRequest": []}, "task.http_request", "google.cloud.tasks.v2.HttpRequest"),
        ({"httpRequest": {"httpMethod": "FETCH"}}, "task.http_request.http_method", "HttpMethod"),
        ({"httpRequest": {"httpMethod": 99}}, "task.http_request.http_method", "HttpMethod"),
        ({"httpRequest": {"httpMethod": True}}, "task.http_request.http_method", "HttpMethod"),
        ({"httpRequest": {"headers": {"a": 1}}}, "task.http_request.headers[0].value", "STRING"),
        ({"httpRequest": {"headers": ["a"]}}, "task.http_request.headers", "Map"),
        ({"dispatchCount": 2**31}, "task.dispatch_count", "TYPE_INT32"),
        ({"dispatchCount": 1.5}, "task.dispatch_count", "TYPE_INT32"),
        ({"dispatchCount": "x"}, "task.dispatch_count", "TYPE_INT32"),
        ({"dispatchCount": False}, "task.dispatch_count", "TYPE_INT32"),
        ({"scheduleTime": "tomorrow"}, "task.schedule_time", "Illegal timestamp format"),
        ({"scheduleTime": 5}, "task.schedule_time", "Illegal timestamp format"),
        ({"dispatchDeadline": "5"}, "task.dispatch_deadline", "duration must end with 's'"),
        ({"dispatchDeadline": 5}, "task.dispatch_deadline", "duration must end with 's'"),
        ({**HTTP, "appEngineHttpRequest": {}}, "task", "oneof field 'message_type' is already set"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_refused_by_its_place(
    rest: Rest, task, place: str, kind: str
) -> None:
    error = rest.refusal("POST", TASKS, {"task": task})
    assert error["status"] == "INVALID_ARGUMENT"
    assert error["message"].startswith(f"Invalid value at '{place}' (")
    assert kind in error["message"]
    assert rest.json("GET", TASKS) == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nonsense",
        b'{"task": }',
        b'{"task": NaN}',
        b"[" * 100_000,
        b"[]",
        b'"text"',
        b"\xff\xfe\xfa",
        b'{"task": {"dispatchCount": ' + b"9" * 10_000 + b"}}",
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_no_request_is_refused(rest: Rest, raw: bytes) -> None:
    error = rest.refusal("POST", TASKS, raw=raw)
    assert error["status"] == "INVALID_ARGUMENT"
    assert error["message"].startswith("Invalid ")


def test_half_a_character_in_a_name_is_told_too(rest: Rest) -> None:
    assert '"\\ud800"' in rest.refusal("POST", TASKS, raw=b'{"\\ud800": 1}')["message"]


def test_an_unknown_parameter_is_refused_by_name(rest: Rest) -> None:
    for method, path in (("GET", f"/v2/{QUEUE}?colour=red"), ("POST", f"{TASKS}?colour=red")):
        message = rest.refusal(method, path, HTTP if method == "POST" else None)["message"]
        assert (
            "Unknown name \"colour\": Cannot bind query parameter. Field 'colour' could not be "
            "found in request message." in message
        )
    message = rest.refusal("GET", f"{TASKS}?pageSize=many")["message"]
    assert message == "Invalid value at 'page_size' (TYPE_INT32), \"many\""
    assert rest.refusal("GET", f"{TASKS}?pageSize=-1")["status"] == "INVALID_ARGUMENT"


def test_other_ways_to_write_answers_are_refused(rest: Rest) -> None:
    assert "alt=proto" in rest.refusal("GET", f"/v2/{QUEUE}?alt=proto")["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v2"),
        ("GET", "/v3/projects/p/locations"),
        ("PUT", f"/v2/{QUEUE}"),
        ("POST", f"/v2/{QUEUE}:explode"),
        ("GET", f"/v2/{QUEUE}/tasks/a/b"),
        ("POST", f"/v2/{LOCATION}/queues/a:b"),
        ("GET", f"/v2/{LOCATION}//queues"),
        ("OPTIONS", f"/v2/{QUEUE}"),
    ],
)
def test_a_path_that_no_method_has_is_not_found(rest: Rest, method: str, path: str) -> None:
    error = rest.refusal(method, path)
    assert error["status"] == "NOT_FOUND"
    assert path in error["message"]


def test_a_path_that_is_no_text_is_refused(rest: Rest) -> None:
    assert rest.refusal("GET", "/v2/projects/%ff/locations")["status"] == "INVALID_ARGUMENT"


def test_bad_ids_in_paths_are_told_as_in_requests(rest: Rest) -> None:
    assert 'Task ID "a b"' in rest.refusal("GET", f"{TASKS}/a%20b")["message"]
    message = rest.refusal("GET", f"/v2/{LOCATION}/queues/under_score")["message"]
    assert message.startswith("Queue name must be formatted")


def test_a_body_beyond_every_task_is_refused_unread(rest: Rest) -> None:
    raw = b'{"task": "' + b"x" * (17 * 1024 * 1024)
    message = rest.refusal("POST", TASKS, raw=raw)["message"]
    assert message == "Request payload size exceeds the limit: 16777216 bytes."


def test_a_database_that_fails_is_unavailable_and_logged(rest: Rest, monkeypatch, caplog) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreError("Tasks cannot be kept in x: disk full.")

    monkeypatch.setattr(rest.service, "get_queue", fail)
    error = rest.refusal("GET", f"/v2/{QUEUE}")
    assert (error["code"], error["status"]) == (503, "UNAVAILABLE")
    assert "disk full" in error["message"]
    assert "disk full" in caplog.text


def test_a_fault_of_ours_tells_its_cause_to_the_log_only(rest: Rest, monkeypatch, caplog) -> None:
    monkeypatch.setattr(rest.service, "get_queue", lambda name: 1 / 0)
    error = rest.refusal("GET", f"/v2/{QUEUE}")
    assert error == {"code": 500, "status": "INTERNAL", "message": "Internal error encountered."}
    assert "ZeroDivisionError" in caplog.text


# --- what else the port serves ---------------------------------------------------------------


def test_mounts_take_what_is_below_their_path(service) -> None:
    def other(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    rest = Rest(service, mounts={"/_local": other})
    assert rest("GET", "/_local/reset").body == b"/_local/reset"
    assert rest("GET", "/_local").body == b"/_local"
    assert rest("GET", "/_locals").status == 404
    assert rest.json("GET", f"/v2/{QUEUE}")["name"] == QUEUE


def test_answers_are_utf_8_and_not_to_be_guessed(rest: Rest) -> None:
    token = {"serviceAccountEmail": "ä@b"}
    request = {"url": "http://localhost/", "oidcToken": token}
    response = rest("POST", TASKS, {"task": {"httpRequest": request}})
    assert response.json["httpRequest"]["oidcToken"] == token
    assert "ä@b".encode() in response.body
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_batch_may_be_longer_than_any_task(rest: Rest) -> None:
    body = base64.b64encode(b"x" * 1_000_000).decode()
    task = {"httpRequest": {"url": "http://h/", "body": body}}
    requests = [{"parent": QUEUE, "task": task}] * 14
    operation = rest.json("POST", f"{TASKS}:batchCreate", {"requests": requests})
    assert operation["metadata"]["state"] == "SUCCEEDED"
    assert len(operation["response"]["tasks"]) == 14
