"""One HTTP request ends by its deadline, whatever the target does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from appengine_compat.backends.rq import http_attempt
from appengine_compat.core import outcome
from tests import http_target


@contextmanager
def hostile(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answer one connection with anything at all."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    serve(connection)
                except OSError:
                    pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        thread.join(20)
        assert not thread.is_alive()


def send(url: str, *, method: str = "POST", body: bytes = b"x", deadline: float = 20.0):
    return http_attempt.send(method, url, [("X-A", "ä")], body, deadline_seconds=deadline)


def test_a_reply_is_told_with_its_beginning() -> None:
    with http_target.serving() as target:
        target.answers, target.reply_headers = [503], {"Retry-After": "7"}
        reply = send(target.address + "/a%20b?c=d")
        assert (reply.status, reply.body, reply.retry_after_seconds) == (503, b"answer", 7.0)
        (request,) = target.arrived
        assert (request.path, request.body) == ("/a%20b?c=d", b"x")
        assert request.headers["x-a"].encode("latin-1").decode() == "ä"
        assert request.headers["content-length"] == "1"


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
def test_without_a_body_none_is_announced(method: str) -> None:
    with http_target.serving() as target:
        assert send(target.address, method=method, body=b"").status == 200
        assert target.arrived[0].path == "/"
        assert "content-length" not in target.arrived[0].headers


def test_a_redirect_is_followed() -> None:
    with http_target.serving() as target:
        target.answers, target.reply_headers = [307], {"Location": "/elsewhere"}
        assert send(target.address).status == 200
        assert [(each.path, each.body) for each in target.arrived] == [
            ("/", b"x"),
            ("/elsewhere", b"x"),
        ]


def drip(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Filler: 1\r\n")
        threading.Event().wait(0.02)


def keep_silent(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


@pytest.mark.parametrize("serve", [drip, keep_silent])
def test_what_never_ends_is_ended(serve: Callable[[socket.socket], None]) -> None:
    with hostile(serve) as url:
        assert send(url, deadline=0.3).status == outcome.TIMED_OUT


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na",
    ],
)
def test_what_is_no_reply_counts_as_none(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)

    with hostile(serve) as url:
        reply = send(url)
    assert reply.status == outcome.NO_REPLY
    assert reply.error


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid/"])
def test_who_cannot_be_reached_has_not_replied(url: str) -> None:
    reply = send(url)
    assert reply.status == outcome.NO_REPLY
    assert reply.error


def test_a_malformed_address_is_told() -> None:
    assert "malformed" in send("http://localhost:port/").error


def test_a_header_that_would_become_two_stays_one() -> None:
    with http_target.serving() as target:
        http_attempt.send(
            "POST", target.address, [("X-A", "a\r\nX-B: b")], b"", deadline_seconds=20
        )
        assert all("x-b" not in request.headers for request in target.arrived)
