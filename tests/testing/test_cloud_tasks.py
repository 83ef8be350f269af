"""A local Cloud Tasks for the length of a test, by Google's own client and real targets."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
import urllib.request
from datetime import datetime, timedelta, timezone

import pytest
from google.api_core.exceptions import AlreadyExists, NotFound
from google.cloud import tasks_v2

from appengine_compat import testing
from appengine_compat.errors import StoreError


@pytest.fixture
def target():
    """An HTTP server that counts what it gets, and answers as the path says (``/500``)."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            received.append((self.path, body, dict(self.headers)))
            status = self.path.strip("/")
            self.send_response(int(status) if status.isdigit() else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        class Target:
            url = f"http://localhost:{server.server_address[1]}"
            paths = property(lambda self: [path for path, _, _ in received])
            requests = received

        yield Target()
        server.shutdown()
        thread.join()


@pytest.fixture
def local():
    # Not the plugin's fixture: this repository's own queue.yaml would come with it.
    with testing.local_cloud_tasks() as running:
        yield running


@pytest.fixture
def client(local):
    with local.client() as made:
        yield made


def test_googles_client_creates_and_the_target_gets(local, client, target):
    queue = local.queue_path("default")
    task = {"http_request": {"url": f"{target.url}/hello", "body": b"hi"}}

    created = client.create_task(parent=queue, task=task)
    local.wait_idle()

    assert created.name.startswith(f"{queue}/tasks/")
    assert [(path, body) for path, body, _ in target.requests] == [("/hello", b"hi")]
    with pytest.raises(NotFound, match="no longer exists"):
        client.get_task(name=created.name)


def test_rest_serves_the_same(local):
    url = f"{local.rest_url}/v2/{local.parent}/queues"

    with urllib.request.urlopen(url, timeout=10) as answer:
        queues = json.load(answer)["queues"]

    assert [queue["name"] for queue in queues] == [local.queue_path("default")]


def test_each_test_has_its_own(local):
    with testing.local_cloud_tasks() as other:
        assert other.grpc_address != local.grpc_address
        with other.client() as client:
            client.create_queue(
                parent=other.parent, queue=tasks_v2.Queue(name=other.queue_path("mine"))
            )
        assert [queue.name for queue in local.service.all_queues()] == [local.queue_path("default")]


def test_app_engine_tasks_go_where_their_service_is(target):
    services = {"worker": target.url}
    with testing.local_cloud_tasks(services=services) as local, local.client() as client:
        for service in ("worker", "elsewhere"):
            client.create_task(
                parent=local.queue_path("default"),
                task={
                    "app_engine_http_request": {
                        "relative_uri": f"/{service}",
                        "app_engine_routing": {"service": service},
                    }
                },
            )
        local.wait_idle()

    assert target.paths == ["/worker"]


def test_all_other_services_can_have_one_address(target):
    with testing.local_cloud_tasks(app_engine_target=target.url) as local:
        with local.client() as client:
            client.create_task(
                parent=local.queue_path("default"),
                task={"app_engine_http_request": {"relative_uri": "/any"}},
            )
        local.wait_idle()

    assert target.paths == ["/any"]


def test_targets_that_hang_hold_up_no_other(target):
    with (
        socket.create_server(("127.0.0.1", 0)) as hanging,
        testing.local_cloud_tasks(queues=["hang", "mail"], threads=2) as local,
        local.client() as client,
    ):
        url = f"http://localhost:{hanging.getsockname()[1]}"
        for _ in range(6):
            client.create_task(parent=local.queue_path("hang"), task={"http_request": {"url": url}})
        taken = [hanging.accept()[0] for _ in range(6)]
        client.create_task(
            parent=local.queue_path("mail"), task={"http_request": {"url": f"{target.url}/mail"}}
        )
        while client.list_tasks(parent=local.queue_path("mail")).tasks:
            local.service.wait_idle(0.01)
        for each in taken:
            each.close()
        client.purge_queue(name=local.queue_path("hang"))

    assert target.paths == ["/mail"]


def test_a_retry_comes_when_the_clock_is_stepped(target):
    with testing.local_cloud_tasks(stepped_clock=True) as local, local.client() as client:
        queue = local.queue_path("default")
        client.update_queue(
            queue={"name": queue, "retry_config": {"min_backoff": {"seconds": 3600}}},
            update_mask={"paths": ["retry_config.min_backoff"]},
        )
        client.create_task(parent=queue, task={"http_request": {"url": f"{target.url}/500"}})
        local.wait_idle()
        local.advance(3599)
        local.wait_idle()
        once = len(target.paths)

        local.advance(1)
        local.wait_idle()

    assert (once, len(target.paths)) == (1, 2)
    assert target.requests[1][2]["X-CloudTasks-TaskRetryCount"] == "1"


def test_the_real_clock_cannot_be_stepped(local):
    with pytest.raises(ValueError, match="machine's clock"):
        local.advance(1)


def test_waiting_in_vain_tells_for_what(local, client):
    queue = local.queue_path("default")
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            release.wait(30)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://localhost:{server.server_address[1]}/"
        client.create_task(parent=queue, task={"http_request": {"url": url}})

        with pytest.raises(TimeoutError, match="default has 1 tasks"):
            local.wait_idle(0.05)

        release.set()
        local.wait_idle()
        server.shutdown()


def test_reset_frees_names_and_leaves_the_queues_of_the_start(local, client):
    queue = local.queue_path("default")
    later = datetime.now(timezone.utc) + timedelta(days=1)
    task = {
        "name": f"{queue}/tasks/one",
        "http_request": {"url": "http://localhost:1/"},
        "schedule_time": later,
    }
    client.create_task(parent=queue, task=task)
    with pytest.raises(AlreadyExists):
        client.create_task(parent=queue, task=task)

    local.reset()
    client.create_task(parent=queue, task=task)

    assert [each.name for each in client.list_tasks(parent=queue)] == [task["name"]]


def test_a_state_is_taken_over_by_another_server(local, client, tmp_path):
    queue = local.queue_path("default")
    client.pause_queue(name=queue)
    client.create_task(parent=queue, task={"http_request": {"url": "http://localhost:1/"}})

    local.export_state(tmp_path / "state")
    with testing.local_cloud_tasks(queues=()) as other:
        other.import_state(tmp_path / "state")
        imported = other.service.list_tasks(queue).items

    assert imported == local.service.list_tasks(queue).items
    (tmp_path / "broken").write_bytes(b"?")
    with pytest.raises(StoreError, match="nothing was changed"):
        local.import_state(tmp_path / "broken")


def test_a_file_keeps_it_all_for_the_next_time(tmp_path):
    with testing.local_cloud_tasks(db=tmp_path / "tasks.db", queues=["kept"]):
        pass
    with testing.local_cloud_tasks(db=tmp_path / "tasks.db", queues=()) as again:
        assert [queue.name for queue in again.service.all_queues()] == [again.queue_path("kept")]


def test_queues_come_from_a_queue_yaml_and_by_full_names(tmp_path):
    (tmp_path / "queue.yaml").write_text("queue:\n- name: slow\n  rate: 6/m\n")
    other = "projects/q/locations/l/queues/far"

    with testing.local_cloud_tasks(queue_yaml=tmp_path / "queue.yaml", queues=[other]) as local:
        by_name = {queue.name: queue for queue in local.service.all_queues()}

    assert sorted(by_name) == [other, local.queue_path("slow")]
    assert by_name[local.queue_path("slow")].rate_limits.max_dispatches_per_second == 0.1


def test_this_packages_own_backend_is_led_here_by_the_variables(local, client, monkeypatch, target):
    from google.appengine.api import taskqueue

    for name, value in local.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", target.url)
    monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", "tasks@example.test")

    taskqueue.add(url="/legacy", params={"a": "1"})
    local.wait_idle()

    assert target.paths == ["/legacy"]


RAN = []


def remember(value):
    RAN.append(value)


def test_a_deferred_call_goes_there_and_comes_back_through_the_door(local, monkeypatch):
    from google.appengine.api import wrap_wsgi_app
    from google.appengine.ext import deferred

    from appengine_compat.local.fronts.rest_server import serve_app

    def page(environ, start_response):
        start_response("404 Not Found", [])
        return [b""]

    served = serve_app(wrap_wsgi_app(page, use_deferred=True), "127.0.0.1", 0)
    for name, value in local.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", f"http://localhost:{served.port}")
    monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", "tasks@example.test")

    deferred.defer(remember, "by token")
    local.wait_idle()
    monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", "another@example.test")
    monkeypatch.setenv("APPENGINE_COMPAT_OIDC_ISSUER", "http://localhost:1")
    deferred.defer(remember, "by a token of nobody")
    local.wait_idle()
    served.stop()

    assert RAN == ["by token"]


def test_identity_tokens_are_vouched_for_at_the_rest_address(local, client, target):
    account = {"service_account_email": "tasks@example.test", "audience": "me"}
    client.create_task(
        parent=local.queue_path("default"),
        task={"http_request": {"url": f"{target.url}/", "oidc_token": account}},
    )
    local.wait_idle()

    scheme, token = target.requests[0][2]["Authorization"].split(" ")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    well_known = f"{local.rest_url}/.well-known/openid-configuration"
    with urllib.request.urlopen(well_known, timeout=10) as answer:
        discovery = json.load(answer)

    assert scheme == "Bearer"
    assert (claims["email"], claims["aud"]) == ("tasks@example.test", "me")
    assert claims["iss"] == discovery["issuer"] == local.rest_url


def test_the_plugin_has_it_as_a_fixture(pytester):
    pytester.makeini("[pytest]\naec_queue_yaml = queue.yaml\n")
    (pytester.path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 1/s\n")
    pytester.makepyfile(
        """
        def test_it(local_cloud_tasks):
            with local_cloud_tasks.client() as client:
                queues = client.list_queues(parent=local_cloud_tasks.parent)
                assert [each.name.rpartition("/")[2] for each in queues] == ["default", "mail"]
        """
    )

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(passed=1)


def test_an_error_of_the_start_leaves_nothing_open(tmp_path):
    before = threading.active_count()

    with (
        pytest.raises(ValueError, match="address"),
        testing.local_cloud_tasks(services={"worker": "nowhere"}),
    ):
        raise AssertionError("it must not start")

    assert threading.active_count() == before
