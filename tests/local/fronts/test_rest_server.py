"""The HTTP server of the REST door: slow, idle, broken and foreign clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
from collections.abc import Iterator

import pytest

from appengine_compat.errors import ConfigError
from appengine_compat.local.fronts.rest_server import RestServer, guarded, serve_rest
from tests.local.fronts.conftest import QUEUE, TASKS

PATIENCE_SECONDS = 20
IDLE_CONNECTIONS = 1500


@pytest.fixture
def server(service) -> Iterator[RestServer]:
    server = serve_rest(service, port=0)
    yield server
    server.stop()


def ask(
    server: RestServer,
    method: str = "GET",
    path: str = f"/v2/{QUEUE}",
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else {}


def connect(server: RestServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS)


def test_one_connection_serves_many_requests(server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.connect()
        own = connection.sock
        for _ in range(5):
            connection.request("GET", f"/v2/{QUEUE}")
            assert connection.getresponse().read()
        assert connection.sock is own


def test_a_body_may_come_in_chunks(server, service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    text = json.dumps({"task": {"httpRequest": {"url": "http://localhost:9/"}}}).encode()
    with contextlib.closing(connection):
        parts = iter([text[:10], text[10:]])
        connection.request(
            "POST", TASKS, parts, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        assert connection.getresponse().status == 200
    assert len(service.list_tasks(QUEUE).items) == 1


def test_clients_that_say_nothing_or_half_keep_nobody_from_being_served(server) -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends are in this process.
    count = min(IDLE_CONNECTIONS, (files - 300) // 2)
    with contextlib.ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(connect(server))
            if number % 3 == 1:
                client.sendall(b"GET /v2/")
            elif number % 3 == 2:
                client.sendall(
                    f"POST {TASKS} HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{{".encode()
                )
        status, queue = ask(server)
        assert (status, queue["name"]) == (200, QUEUE)
    assert ask(server)[0] == 200


def test_clients_that_leave_early_do_no_harm(server, service) -> None:
    for sent in (
        b"",
        b"GET",
        b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12",
        f"GET /v2/{QUEUE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    ):
        with connect(server) as client:
            client.sendall(sent)
    assert ask(server)[0] == 200
    assert not service.list_tasks(QUEUE).items


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 300_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:12]),
)
def test_what_is_not_http_is_refused(server, sent: bytes) -> None:
    with connect(server) as client:
        with contextlib.suppress(OSError):
            client.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = client.recv(100)
        assert not answer.startswith(b"HTTP/1.1 2")
    assert ask(server)[0] == 200


def test_a_body_that_is_too_large_is_refused_by_its_length(server) -> None:
    with connect(server) as client:
        client.sendall(
            f"POST {TASKS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**31}\r\n\r\n".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_a_port_that_is_taken_is_told(server, service) -> None:
    with pytest.raises(
        ConfigError, match=rf"127\.0\.0\.1:{server.port}: another program"
    ) as caught:
        serve_rest(service, port=server.port)
    assert caught.value.setting == "--rest-port"


def test_a_host_that_is_not_here_is_told(service) -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        serve_rest(service, host="192.0.2.1", port=0)


def test_localhost_is_reached_by_its_ipv4_address(service) -> None:
    server = serve_rest(service, host="localhost", port=0)
    try:
        assert ask(server)[0] == 200
    finally:
        server.stop()


def test_after_its_end_the_port_is_free(service) -> None:
    server = serve_rest(service, port=0)
    ask(server)
    server.stop()
    again = serve_rest(service, port=server.port)
    assert ask(again)[0] == 200
    again.stop()


# --- what web pages make a browser ask -------------------------------------------------------


CREATE = json.dumps({"task": {"httpRequest": {"url": "http://localhost:9/"}}}).encode()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://[bad", "http://10.0.0.1"]
)
def test_a_page_from_elsewhere_creates_no_tasks(server, service, origin: str) -> None:
    status, answer = ask(server, "POST", TASKS, CREATE, Origin=origin, Content_Type="text/plain")
    assert status == 403
    assert answer["error"]["status"] == "PERMISSION_DENIED"
    assert origin in answer["error"]["message"]
    assert not service.list_tasks(QUEUE).items


@pytest.mark.parametrize(
    "origin", ["http://localhost:8000", "http://127.0.0.1", "http://a.localhost"]
)
def test_a_page_of_this_machine_may(server, origin: str) -> None:
    assert ask(server, "POST", TASKS, CREATE, Origin=origin)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8124", "localhost.evil.example"])
def test_a_name_made_to_resolve_here_is_refused(server, host: str) -> None:
    status, answer = ask(server, Host=host)
    assert status == 403
    assert host.partition(":")[0] in answer["error"]["message"]


@pytest.mark.parametrize(
    "host",
    ["localhost:8124", "127.0.0.1", "127.0.0.2:1", "[::1]:1", "host.docker.internal:1"],
)
def test_names_of_this_machine_are_its_own(server, host: str) -> None:
    assert ask(server, Host=host)[0] == 200


def test_who_serves_other_machines_is_known_by_any_name_but_pages_stay_out() -> None:
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    def status(**environ: str) -> str:
        seen: list[str] = []
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", **environ}
        list(guarded(app, "0.0.0.0")(environ, lambda status, headers: seen.append(status)))
        return seen[0]

    assert status(HTTP_HOST="tasks:8124") == "200 OK"
    assert status(HTTP_HOST="tasks:8124", HTTP_ORIGIN="http://tasks:8124") == "200 OK"
    assert status(HTTP_HOST="10.0.0.9:8124", HTTP_ORIGIN="http://10.0.0.9:8124") == "200 OK"
    for name in ("evil.example", "tasks"):
        assert status(HTTP_HOST="evil.example", HTTP_ORIGIN=f"http://{name}") == "403 Forbidden"
