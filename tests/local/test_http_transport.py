"""A task reaches its address as one HTTP request; whatever the target does, there is a reply."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appengine_compat.core import outcome
from appengine_compat.local import http_connections, http_exchange
from appengine_compat.local.delivery import Reply
from appengine_compat.local.http_transport import (
    MOST_REDIRECTS,
    NO_ACCESS_TOKEN,
    HttpTransport,
    retry_after_seconds,
)
from appengine_compat.local.service_addresses import ServiceAddresses
from tests.local import raw_target
from tests.local.raw_target import LONG_SECONDS, OK, Raw, delivery


@pytest.fixture
def target() -> Iterator[Raw]:
    with raw_target.serving() as target:
        yield target


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    transport = HttpTransport()
    yield transport
    transport.close()


def answer(status: int, *lines: str, body: bytes = b"") -> bytes:
    head = [f"HTTP/1.1 {status} Word", *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


# --- the request ---


def test_the_request_is_whole(target, transport):
    headers = [("X-Own", "1"), ("User-Agent", "Google-Cloud-Tasks")]
    reply = transport.send(delivery(f"{target.url}/a/b?c=d", body=b"payload", headers=headers))
    assert reply == Reply(200, b"ok")
    assert target.requests == [
        f"POST /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nX-Own: 1\r\n"
        "User-Agent: Google-Cloud-Tasks\r\nContent-Length: 7\r\n\r\npayload".encode()
    ]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/"),
        ("?a=b", "/?a=b"),
        ("/caf\u00e9?\u00fc=1 2", "/caf%C3%A9?%C3%BC=1%202"),
        ("/%41%2f", "/%41%2f"),
        ("/a#fragment", "/a"),
        ("/a;p=1,2/(x)!$'*+~@:", "/a;p=1,2/(x)!$'*+~@:"),
    ],
)
def test_the_path_is_asked_for_as_the_task_has_it_in_the_letters_of_http(
    target, transport, path, asked
):
    transport.send(delivery(target.url + path))
    assert target.heads()[0][0] == f"POST {asked} HTTP/1.1"


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("POST", b"", "0"), ("GET", b"", None), ("DELETE", b"", None), ("PUT", b"x", "1")],
)
def test_a_length_is_sent_with_the_methods_that_have_a_body(
    target, transport, method, body, length
):
    transport.send(delivery(target.url, method=method, body=body))
    assert target.headers().get("content-length") == length


def test_a_long_body_arrives_whole(target, transport):
    body = bytes(range(256)) * 4000
    transport.send(delivery(target.url, body=body))
    assert target.requests[0].partition(b"\r\n\r\n")[2] == body


def test_no_header_of_a_task_can_frame_the_request_anew(target, transport):
    headers = [
        ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("Host", "elsewhere"),
        ("Content-Length", "99"), ("X-Own", "1\r\nX-Smuggled: 2\n3\x00"),
    ]  # fmt: skip
    transport.send(delivery(target.url, body=b"x", headers=headers))
    assert target.headers() == {
        "host": f"127.0.0.1:{target.port}", "x-own": "1  X-Smuggled: 2 3 ", "content-length": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[::1", "http://h:99999/", "http://h:x/", "ftp://h/", "http://h/%zz",
     "http://h/?%", f"http://{'a' * 70}.\u00fc/"],
)  # fmt: skip
def test_an_address_that_cannot_be_asked_fails_the_attempt_with_words(transport, url):
    reply = transport.send(delivery(url))
    assert reply.status == outcome.NO_REPLY
    assert "the address" in reply.error


def test_a_header_that_cannot_be_sent_fails_the_attempt_with_words(target, transport):
    reply = transport.send(delivery(target.url, headers=[("No Name", "1")]))
    assert reply.status == outcome.NO_REPLY
    assert "'No Name' cannot be the name of a header" in reply.error


# --- the reply ---


@pytest.mark.parametrize(
    ("wire", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.0 201 Made\r\n\r\nto the end", 201, b"to the end"),
        (b"HTTP/1.1 204\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 500 x\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n1\r\n!\r\n0\r\nA: b"
         b"\r\n\r\n", 500, b"ok!"),
        (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", 200, b""),
    ],
)  # fmt: skip
def test_replies_are_read_as_they_are_framed(target, transport, wire, status, body):
    def send(connection: socket.socket) -> None:
        connection.sendall(wire)

    target.answers = [send]
    assert transport.send(delivery(target.url)) == Reply(status, body)


def test_a_reply_that_comes_byte_by_byte_is_read_whole(target, transport):
    def drip(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        for place in range(len(wire)):
            connection.sendall(wire[place : place + 1])

    target.answers = [drip]
    assert transport.send(delivery(target.url)) == Reply(200, b"abc")


def test_the_beginning_of_a_long_reply_is_kept(target, transport):
    target.answers = [answer(500, body=b"x" * 500_000)]
    assert transport.send(delivery(target.url)) == Reply(500, b"x" * 2048)
    transport.send(delivery(target.url))
    assert target.connections == 1


def test_a_reply_without_end_counts_by_its_status(target, transport, monkeypatch):
    monkeypatch.setattr(http_exchange, "LONGEST_BODY_BYTES", 100_000)

    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    target.answers = [pour]
    assert transport.send(delivery(target.url)).status == 200


GARBAGE = [
    b"\x00\x01\x02\x03\x04\x05\r\n\r\n",
    b"220 mail.example.com ESMTP\r\n",
    b"HTTP/1.1 2OO OK\r\n\r\n",
    b"HTTP/1.1 99 No\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 100 Go\r\n\r\n" * 30,
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 20_000,
    # They close early:
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
]


@pytest.mark.parametrize("wire", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_whole_reply_is_none(target, transport, wire):
    def send(connection: socket.socket) -> None:
        connection.sendall(wire)

    target.answers = [send]
    reply = transport.send(delivery(target.url))
    assert reply.status == outcome.NO_REPLY
    assert f"{target.url} gave no whole reply" in reply.error
    assert transport.send(delivery(target.url)).status == 200


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda head, rest: b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + rest,
        st.sampled_from([b"A: b", b"Content-Length: 4", b"Transfer-Encoding: chunked"]),
        st.one_of(st.binary(max_size=40), st.text("0123456789abc\r\n;", max_size=30).map(
            lambda text: text.encode())),
    ),
))  # fmt: skip
def test_no_bytes_do_anything_but_reply_or_fail(wire):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(wire)
        theirs.shutdown(socket.SHUT_WR)
        try:
            received = http_exchange.exchange(ours, "POST", [], time.monotonic() + LONG_SECONDS)
        except http_exchange.BrokenReplyError:
            return
        assert 100 <= received.status <= 999


def test_where_nothing_listens_the_reply_says_so(transport):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reply = transport.send(delivery(f"http://127.0.0.1:{port}/secret?key=1"))
    assert reply.status == outcome.NO_REPLY
    assert f"nothing listens at http://127.0.0.1:{port}: start the program" in reply.error
    assert "key" not in reply.error


# --- the deadline ---


def waiting(target: Raw, *parts: bytes):
    def wait(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        target.over.wait()

    return wait


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", OK[:-1]])
def test_a_target_that_hangs_is_left_at_the_deadline(target, transport, said):
    target.answers = [waiting(target, said)]
    reply = transport.send(delivery(target.url, seconds=0.2))
    assert reply == Reply(outcome.TIMED_OUT, error="no reply within the deadline of 0.2 seconds")


def test_a_target_that_drips_does_not_move_the_deadline(target, transport):
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not target.over.wait(0.01):
            connection.sendall(b".")

    target.answers = [drip]
    assert transport.send(delivery(target.url, seconds=0.3)).status == outcome.TIMED_OUT


def test_a_target_that_takes_in_nothing_does_not_hold_the_sender(transport):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        reply = transport.send(delivery(url, body=b"x" * 30_000_000, seconds=0.3))
    assert reply.status == outcome.TIMED_OUT


def test_the_deadline_is_for_all_redirects_together(target, transport):
    target.answers = [answer(307, "Location: /next"), waiting(target)]
    assert transport.send(delivery(target.url, seconds=0.3)).status == outcome.TIMED_OUT
    assert len(target.requests) == 2


# --- kept connections ---


def test_a_connection_serves_many_tasks(target, transport):
    for number in range(5):
        assert transport.send(delivery(f"{target.url}/{number}")).status == 200
    assert (target.connections, len(target.requests)) == (1, 5)


@pytest.mark.parametrize(
    "wire",
    [
        answer(200, "Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        answer(200) + b"more than was asked for",
    ],
)
def test_a_connection_that_cannot_go_on_is_not_used_again(target, transport, wire):
    target.answers = [wire]
    for _ in range(2):
        assert transport.send(delivery(target.url)).status == 200
    assert target.connections == 2


def test_a_connection_that_was_idle_for_long_is_not_used_again(target, transport, monkeypatch):
    transport.send(delivery(target.url))
    later = time.monotonic() + http_connections.IDLE_SECONDS + 0.1
    monkeypatch.setattr(http_connections.time, "monotonic", lambda: later)
    transport.send(delivery(target.url))
    assert target.connections == 2


def test_a_kept_connection_that_the_target_closed_costs_no_attempt(target, transport):
    target.answers = [OK, None]
    transport.send(delivery(target.url))
    assert transport.send(delivery(target.url)).status == 200
    assert target.connections == 2


def test_a_new_connection_that_is_closed_without_a_word_fails_the_attempt(target, transport):
    target.answers = [None]
    reply = transport.send(delivery(target.url))
    assert reply.status == outcome.NO_REPLY
    assert "closed the connection without a reply" in reply.error
    assert len(target.requests) == 1


def test_a_refusal_of_a_long_body_counts_though_the_connection_breaks(target, transport):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer(413, "Connection: close"))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1_000_000):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert transport.send(delivery(url, body=b"x" * 5_000_000)).status == 413
        transport.close()
        thread.join()


def test_closing_a_transport_leaves_no_connection(target):
    transport = HttpTransport()
    transport.send(delivery(target.url))
    transport.close()
    assert target.peer_closed.wait(LONG_SECONDS)


def test_a_transport_that_is_forgotten_leaves_no_connection(target):
    HttpTransport().send(delivery(target.url))
    assert target.peer_closed.wait(LONG_SECONDS)


# --- redirects ---


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (302, "POST", "GET"), (303, "PUT", "GET"), (307, "POST", "POST"),
     (308, "PUT", "PUT"), (302, "GET", "GET"), (303, "HEAD", "HEAD")],
)  # fmt: skip
def test_an_http_target_may_send_a_task_on(target, transport, status, method, then):
    body = b"x" if method in ("POST", "PUT") else b""
    target.answers = [answer(status, "Location: /next?a=b")]
    if method == "HEAD":
        target.answers = [
            b"HTTP/1.1 303 x\r\nLocation: /next?a=b\r\n\r\n",
            b"HTTP/1.1 200 x\r\n\r\n",
        ]
    headers = [("Content-Type", "text/plain"), ("X-CloudTasks-TaskName", "t")]
    sent = delivery(f"{target.url}/first", method=method, body=body, headers=headers)
    assert transport.send(sent).status == 200
    assert target.heads()[1][0] == f"{then} /next?a=b HTTP/1.1"
    assert target.headers()["x-cloudtasks-taskname"] == "t"
    keeps_body = bool(body) and then == method
    assert target.requests[1].endswith(b"x") is keeps_body
    assert ("content-type" in target.headers()) is (keeps_body or method in ("GET", "HEAD"))


def test_another_host_does_not_learn_the_authorization(target, transport):
    with raw_target.serving() as other:
        target.answers = [
            answer(307, "Location: /own"),
            answer(307, f"Location: {other.url}/other"),
        ]
        headers = [("Authorization", "Bearer secret"), ("X-Own", "1")]
        assert transport.send(delivery(target.url, headers=headers)).status == 200
        assert target.headers(1)["authorization"] == "Bearer secret"
        assert "authorization" not in other.headers()
        assert other.headers()["x-own"] == "1"


@pytest.mark.parametrize(
    "lines", [(), ("Location: ",), ("Location: ftp://h/",), ("Location: http://[",)]
)
def test_a_redirect_to_nowhere_is_the_reply(target, transport, lines):
    target.answers = [answer(302, *lines)]
    assert transport.send(delivery(target.url)).status == 302
    assert len(target.requests) == 1


def test_redirects_without_end_are_a_failure(target, transport):
    target.answers = [answer(302, "Location: /again")] * 50
    assert transport.send(delivery(target.url)).status == 302
    assert len(target.requests) == 1 + MOST_REDIRECTS


def test_an_app_engine_service_is_not_followed(target):
    transport = HttpTransport(ServiceAddresses({"default": target.url}))
    target.answers = [answer(302, "Location: /next")]
    assert transport.send(delivery("/work", service="default")).status == 302
    assert len(target.requests) == 1
    transport.close()


# --- services ---


def test_a_task_of_a_service_goes_to_its_address(target):
    transport = HttpTransport(ServiceAddresses({"worker": target.url}))
    assert transport.services() == {"", "worker"}
    assert transport.send(delivery("/work?a=b", service="worker")).status == 200
    assert target.heads()[0][0] == "POST /work?a=b HTTP/1.1"
    transport.close()


def test_an_address_for_all_takes_every_service(target):
    transport = HttpTransport(ServiceAddresses(otherwise=target.url))
    assert transport.services() is None
    assert transport.send(delivery("/work", service="any")).status == 200
    transport.close()


def test_a_version_may_have_an_address_of_its_own(target, transport):
    with raw_target.serving() as version_two:
        transport = HttpTransport(
            ServiceAddresses({"worker": target.url, "v2.worker": version_two.url})
        )
        transport.send(delivery("/x", service="worker", extra={"version": "v2"}))
        transport.send(delivery("/x", service="worker", extra={"version": "v1"}))
        assert (len(version_two.requests), len(target.requests)) == (1, 1)
        transport.close()


# --- Retry-After ---


def test_retry_after_is_told_in_seconds(target, transport):
    target.answers = [answer(503, "Retry-After: 17"), answer(503, "Retry-After: soon")]
    assert transport.send(delivery(target.url)).retry_after_seconds == 17
    assert transport.send(delivery(target.url)).retry_after_seconds == 0


def test_retry_after_may_be_a_date_by_the_targets_own_clock():
    now = datetime(2020, 1, 1, tzinfo=timezone.utc)
    until = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert retry_after_seconds(until, format_datetime(now, usegmt=True)) == 90
    assert retry_after_seconds(until, "") == 0  # long ago by ours


@given(st.text())
def test_no_retry_after_does_harm(text):
    assert retry_after_seconds(text, text) >= 0


# --- tokens ---


def test_an_access_token_is_never_a_real_one(target, transport):
    extra = {"token": {"service_account_email": "a@b", "scope": "s"}}
    headers = [("Authorization", "of the task")]
    transport.send(delivery(target.url, extra=extra, headers=headers))
    assert target.headers()["authorization"] == f"Bearer {NO_ACCESS_TOKEN}"


def test_without_an_identity_tasks_go_without_their_token_and_that_is_said_once(
    target, transport, caplog
):
    extra = {"token": {"service_account_email": "a@b", "audience": ""}}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            transport.send(delivery(target.url, extra=extra))
    assert "authorization" not in target.headers()
    assert len(caplog.records) == 1


# --- https ---


def test_a_target_whose_certificate_nobody_vouches_for_is_refused(tmp_path, transport):
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    reply = over_tls(transport, context)
    assert reply.status == outcome.NO_REPLY
    assert "no safe connection" in reply.error


def test_a_target_over_tls_is_reached(tmp_path, transport, monkeypatch):
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    assert over_tls(transport, context) == Reply(200, b"ok")


def over_tls(transport: HttpTransport, context: ssl.SSLContext) -> Reply:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with plain:
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        connection.recv(65536)
                        connection.sendall(OK)
                        connection.recv(1)
                except OSError:
                    pass  # the client would not have it

        thread = threading.Thread(target=serve)
        thread.start()
        reply = transport.send(delivery(f"https://127.0.0.1:{listener.getsockname()[1]}/"))
        transport.close()
        thread.join()
    return reply


def make_certificate(folder) -> str:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "target")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "target.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)
