"""A queue's own routing changes tasks at dispatch, also those that were there before it."""

from __future__ import annotations

import pytest

from appengine_compat.core.model import (
    AppEngineRouting,
    EnforceMode,
    HttpRequest,
    HttpTarget,
    OAuthToken,
    OidcToken,
    Queue,
    Task,
    UriOverride,
)
from appengine_compat.local import records
from appengine_compat.local.queue_routing import overridden
from tests.local.conftest import QUEUE, Local

NAME = str(QUEUE)
URL = "http://task.example.com:81/path?q=1"
EMPTY = "http://task.example.com"


@pytest.mark.parametrize(
    ("override", "url"),
    [
        ({}, URL),
        ({"scheme": "HTTPS"}, "https://task.example.com:81/path?q=1"),
        ({"host": "queue.example.com"}, "http://queue.example.com:81/path?q=1"),
        ({"host": "::1"}, "http://[::1]:81/path?q=1"),
        ({"port": 8080}, "http://task.example.com:8080/path?q=1"),
        ({"port": 0}, "http://task.example.com/path?q=1"),
        ({"path": "/new"}, "http://task.example.com:81/new?q=1"),
        ({"path": "new"}, "http://task.example.com:81/new?q=1"),
        ({"path": ""}, "http://task.example.com:81?q=1"),
        ({"query": "a=b"}, "http://task.example.com:81/path?a=b"),
        ({"query": ""}, "http://task.example.com:81/path"),
        (
            {"scheme": "HTTPS", "host": "h", "port": 0, "path": "/p", "query": ""},
            "https://h/p",
        ),
    ],
)
@pytest.mark.parametrize("mode", [EnforceMode.UNSPECIFIED, EnforceMode.ALWAYS])
def test_an_override_replaces_the_parts_that_it_has(override, url, mode):
    assert overridden(URL, UriOverride(mode=mode, **override)) == url


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (URL, URL),
        (EMPTY, "http://task.example.com:8080/new?a=b"),
        (EMPTY + "/", "http://task.example.com:8080/new?a=b"),
        (EMPTY + "/path", "http://task.example.com:8080/path?a=b"),
    ],
)
def test_where_the_task_has_a_part_the_mode_may_leave_it(before, after):
    override = UriOverride(
        scheme="HTTPS", host="other", port=8080, path="/new", query="a=b",
        mode=EnforceMode.IF_NOT_EXISTS,
    )  # fmt: skip
    assert overridden(before, override) == after


def test_an_address_that_cannot_be_taken_apart_stays():
    assert overridden("http://[::1", UriOverride(host="h")) == "http://[::1"


def route(local: Local, target: HttpTarget | None) -> None:
    local.service.put_queues([Queue(name=NAME, http_target=target)])


def deliver(local: Local, **fields):
    request = HttpRequest(**{"url": URL, "body": b"body", **fields})
    local.service.create_task(NAME, Task(name="", request=request))
    return request


def test_tasks_that_were_there_before_are_sent_by_the_queues_routing(local):
    deliver(local, headers={"x-own": "1", "X-Stays": "2"})
    route(
        local,
        HttpTarget(
            uri_override=UriOverride(host="queue.example.com"),
            method="PUT",
            header_overrides={"X-Own": "queue", "X-New": "3", "X-CloudTasks-QueueName": "forged"},
            token=OidcToken(service_account_email="q@p", audience="aud"),
        ),
    )
    local.start()
    local.settle()
    claim = local.targets.deliveries[0].claim
    assert (claim.method, claim.url, claim.body) == (
        "PUT", "http://queue.example.com:81/path?q=1", b"body",
    )  # fmt: skip
    assert records.token_of(claim.extra) == OidcToken(service_account_email="q@p", audience="aud")
    sent = local.targets.headers()
    assert (sent["X-Own"], sent["X-Stays"], sent["X-New"]) == ("queue", "2", "3")
    assert "x-own" not in sent
    names = [name for name, _ in local.targets.deliveries[0].headers]
    assert names.count("X-CloudTasks-QueueName") == 1
    assert (sent["X-CloudTasks-QueueName"], sent["User-Agent"]) == ("q", "Google-Cloud-Tasks")
    assert local.events[0].path == "http://queue.example.com:81/path?q=1"


def test_the_stored_task_stays_what_it_is_and_is_its_own_again_without_the_routing(local):
    route(local, HttpTarget(uri_override=UriOverride(host="elsewhere"), method="GET"))
    request = deliver(local)
    local.targets.answer = lambda _: 500
    local.start()
    local.settle()
    assert local.targets.deliveries[0].claim.body == b""  # GET has none
    (task,) = local.service.list_tasks(NAME).items
    assert task.request.url == request.url
    route(local, None)
    local.advance(0.2)
    claim = local.targets.deliveries[1].claim
    assert (claim.method, claim.url, claim.body) == ("POST", URL, b"body")


def test_a_queues_access_token_goes_before_the_tasks_identity(local):
    token = OAuthToken(service_account_email="q@p", scope="s")
    route(local, HttpTarget(token=token))
    deliver(
        local, url="https://h/", token=OidcToken(service_account_email="t@p"),
    )  # fmt: skip
    local.start()
    local.settle()
    assert records.token_of(local.targets.deliveries[0].claim.extra) == token


def test_app_engine_tasks_keep_out_of_http_routing(local):
    route(local, HttpTarget(uri_override=UriOverride(host="elsewhere"), method="GET"))
    local.add("t", uri="/work", body=b"b")
    local.start()
    local.settle()
    claim = local.targets.deliveries[0].claim
    assert (claim.method, claim.url, claim.body) == ("POST", "/work", b"b")


@pytest.mark.parametrize(
    ("override", "service", "routing"),
    [
        (AppEngineRouting(service="other", version="v2"), "other", ("v2", "")),
        (AppEngineRouting(service="other"), "other", ("", "")),
        (AppEngineRouting(version="v3", instance="i"), "own", ("v3", "i")),
        (None, "own", ("v1", "")),
    ],
)
def test_a_queues_service_and_version_go_before_the_tasks(local, override, service, routing):
    from appengine_compat.core.model import AppEngineRequest

    request = AppEngineRequest(routing=AppEngineRouting(service="own", version="v1"))
    local.service.create_task(NAME, Task(name="", request=request))
    local.service.put_queues([Queue(name=NAME, app_engine_routing_override=override)])
    local.start()
    local.settle()
    claim = local.targets.deliveries[0].claim
    found = records.routing_of(claim.extra)
    assert (claim.service, (found.version, found.instance)) == (service, routing)
