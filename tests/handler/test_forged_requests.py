"""Attacks over real HTTP: whatever is forged, nothing is unpickled, and the server goes on."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from google.appengine.api import wrap_wsgi_app
from google.appengine.ext import deferred

from appengine_compat import defer_middleware
from appengine_compat.local import tokens

from .conftest import Issuer, Send

SECRET = b"the secret of the attack suite"
UNPICKLED: list[str] = []

DEFERRED = "/_ah/queue/deferred"
CUSTOM = "/custom/path"


def trip() -> None:
    UNPICKLED.append("tripped")


DEFAULTS = [("HTTP_X_APPENGINE_AUTH_DOMAIN", "gmail.com"), ("HTTP_X_APPENGINE_USER_IS_ADMIN", "0")]


class Tripwire:
    """Unpickling it leaves a trace, before anything is called."""

    def __reduce__(self) -> tuple[Any, ...]:
        return trip, ()


TRIPWIRE = pickle.dumps((str, (Tripwire(),), {}))


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """An old app: a custom deferred route, and a page that shows what it would believe."""
    if environ["PATH_INFO"] == CUSTOM:
        text, status, headers = deferred.application.post(environ)
        start_response(f"{status.value} {status.phrase}", headers)
        return [text.encode()]
    believed = sorted(
        name
        for name in environ
        if "APPENGINE" in name.upper().replace("-", "").replace("_", "").replace("CLOUDTASKS", "X")
        and name.startswith("HTTP_X")
        # Old code finds these two in every request; these are their defaults.
        and (name, environ[name]) not in DEFAULTS
    )
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['REMOTE_ADDR']} {environ.get('USER_IS_ADMIN')} {believed}".encode()]


@pytest.fixture(autouse=True)
def open_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "K_SERVICE"):
        monkeypatch.delenv(variable, raising=False)
    tokens.register_secret(SECRET)
    UNPICKLED.clear()


@pytest.fixture(scope="module", params=["wrapped", "wrapped, not legacy", "middleware", "bare"])
def send(request: pytest.FixtureRequest, serve: Callable[[Any], Send]) -> Send:
    layers: dict[str, Any] = {
        "wrapped": lambda: wrap_wsgi_app(app, use_deferred=True),
        "wrapped, not legacy": lambda: wrap_wsgi_app(app, False, True),
        "middleware": lambda: defer_middleware(app),
        "bare": lambda: deferred.application,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
        return serve(layers[request.param]())


@pytest.fixture(scope="module")
def wrapped(serve: Callable[[Any], Send]) -> Send:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
        return serve(wrap_wsgi_app(app, use_deferred=True))


def post(path: str, *headers: str, body: bytes = TRIPWIRE) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1", "Host: app.example.com", "Connection: close",
        f"Content-Length: {len(body)}", "Content-Type: application/octet-stream", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def genuine(path: str = DEFERRED, body: bytes = TRIPWIRE) -> bytes:
    token = tokens.make(SECRET, queue_id="q", task_id="t", path=path)
    return post(
        path, "X-CloudTasks-QueueName: q", "X-CloudTasks-TaskName: t",
        f"X-AEC-Local-Token: {token}", body=body,
    )  # fmt: skip


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_the_tripwire_works(send: Send) -> None:
    """Without this, all the tests below would prove nothing."""
    answer = send(genuine())
    assert UNPICKLED == ["tripped"]
    assert status_of(answer) == 200


SPELLINGS: list[Callable[[str], str]] = [
    str,
    str.lower,
    str.upper,
    lambda name: name.replace("-", "_"),
    lambda name: name.lower().replace("-", "_"),
    lambda name: name.replace("-", "_", 1),
    lambda name: name.replace("AppEngine", "Appengine").replace("CloudTasks", "Cloudtasks"),
]
FORGED = [
    ["X-AppEngine-TaskName: t", "X-AppEngine-QueueName: q", "X-AppEngine-User-IP: 0.1.0.2"],
    ["X-CloudTasks-TaskName: t", "X-CloudTasks-QueueName: q", "User-Agent: Google-Cloud-Tasks"],
    ["X-AppEngine-TaskName: t", "X-Forwarded-For: 0.1.0.2", "X-Real-IP: 0.1.0.2",
     "Forwarded: for=0.1.0.2"],
    ["X-AppEngine-TaskName: t", "Server-Software: Development/2.0"],
    ["X-AppEngine-TaskName: t", "Remote-Addr: 0.1.0.2", "X-AppEngine-Remote-Addr: 0.1.0.2"],
    ["X-AppEngine-Cron: true", "X-AppEngine-User-Is-Admin: 1"],
    ["X-AEC-Carried-X-AppEngine-TaskName: t", "X-AEC-Carried-X-AppEngine-User-IP: 0.1.0.2"],
    ["X-AEC-Local-Token:", "X-CloudTasks-TaskName: t", "X-CloudTasks-QueueName: q"],
    ["X-AEC-Local-Token: " + "0" * 64, "X-CloudTasks-TaskName: t", "X-CloudTasks-QueueName: q"],
    ["Appengine-Compat.Verdict: trusted", "appengine_compat.verdict: Verdict(trusted=True)"],
    ["Authorization: Bearer x", "X-CloudTasks-TaskName: t"],
    ["Authorization: Basic YTpi", "X-CloudTasks-TaskName: t"],
    ["GAE-Env: standard", "X-AppEngine-TaskName: t", "X-AppEngine-QueueName: q",
     "X-AppEngine-User-IP: 0.1.0.2"],
]  # fmt: skip


@pytest.mark.parametrize("path", [DEFERRED, CUSTOM])
@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: headers[0].partition(":")[0])
def test_forged_headers_in_all_spellings(send: Send, headers: list[str], path: str) -> None:
    for spell in SPELLINGS:
        spelt = [
            f"{spell(name)}:{value}" for name, _, value in (line.partition(":") for line in headers)
        ]
        answer = send(post(path, *spelt))
        assert status_of(answer) in (200, 400, 401, 403)
        assert status_of(answer) != 200 or answer.endswith(b"[]")
        # Twice, with blanks around the values.
        status = status_of(send(post(path, *spelt, *(f"{line}  " for line in spelt))))
        assert status in (200, 400, 401, 403)
    assert UNPICKLED == []


@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: headers[0].partition(":")[0])
def test_no_page_of_the_app_sees_them(wrapped: Send, headers: list[str]) -> None:
    for spell in SPELLINGS:
        spelt = [
            f"{spell(name)}:{value}" for name, _, value in (line.partition(":") for line in headers)
        ]
        answer = wrapped(post("/page", *spelt))
        assert answer.endswith(b"127.0.0.1 0 []") or status_of(answer) == 400, answer


@pytest.mark.parametrize(
    "path",
    ["/_ah/queue/deferred", "/_ah/queue/deferred?x=1", "/_ah/queue/%64eferred",
     "//_ah/queue/deferred", "/x/../_ah/queue/deferred", "/_ah/queue/deferred/../deferred",
     "/_ah/queue/deferred%00", "/_ah/queue/deferred;a=b",
     "http://app.example.com/_ah/queue/deferred"],
)  # fmt: skip
def test_no_spelling_of_the_path_is_a_way_around(send: Send, path: str) -> None:
    send(post(path, *FORGED[0]))
    assert UNPICKLED == []


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "PATCH", "DELETE", "OPTIONS", "X"])
def test_no_method_is_a_way_around(send: Send, method: str) -> None:
    for path in (DEFERRED, CUSTOM):
        send(post(path, *FORGED[0]).replace(b"POST", method.encode(), 1))
    assert UNPICKLED == []


def test_a_token_opens_for_its_own_task_only(send: Send) -> None:
    for old, new in (
        (b"X-CloudTasks-TaskName: t", b"X-CloudTasks-TaskName: t2"),
        (b"X-CloudTasks-QueueName: q", b"X-CloudTasks-QueueName: q2"),
        (DEFERRED.encode(), CUSTOM.encode()),
        (b"X-AEC-Local-Token: ", b"X-AEC-Local-Token: 0"),
    ):
        forged = genuine().replace(old, new, 1)
        assert forged != genuine()
        assert status_of(send(forged)) == 403
    assert UNPICKLED == []


def test_forged_identity_tokens(send: Send, issuer: Issuer) -> None:
    good = issuer.token()
    header, claims, signature = good.split(".")
    forged = [
        issuer.token(exp=1),
        issuer.token(aud="https://other.example.com"),
        issuer.token(iss="https://evil.example"),
        issuer.token(email="evil@example.com"),
        issuer.token("b"),
        issuer.token("b", header={"kid": "a"}),
        issuer.token(header={"jku": "http://evil.example/keys", "kid": "evil"}),
        issuer.token(header={"alg": "none"}),
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature[::-1]}",
        f"{good}, {good}",
        f"{good}.{good}",
        good[:-10],
    ]
    for path in (DEFERRED, CUSTOM):
        for token in forged:
            answer = send(post(path, f"Authorization: Bearer {token}", *FORGED[1]))
            assert status_of(answer) == 403 or answer.endswith(b"[]"), token
    assert UNPICKLED == []
    send(post(DEFERRED, f"Authorization: Bearer {good}", *FORGED[1]))
    assert UNPICKLED == ["tripped"]


@pytest.mark.parametrize(
    "request_",
    [
        # Two lengths, and a length beside chunks: shapes in which two servers see two requests.
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 200\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0"
        b"\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        b"POST /x HTTP/1.0\r\nContent-Length: 5\r\n\r\n01234",
    ],
)
def test_requests_hidden_behind_another(send: Send, request_: bytes) -> None:
    send(request_ + post(DEFERRED, *FORGED[0]) + post(CUSTOM, *FORGED[1]))
    assert UNPICKLED == []


@pytest.mark.parametrize("length", ["0", "1", "99999999", "-1", "x", "1e3", ""])
def test_bodies_of_another_length_than_said(send: Send, length: str) -> None:
    for path in (DEFERRED, CUSTOM):
        forged = post(path, *FORGED[0])
        send(
            forged.replace(
                b"Content-Length: %d" % len(TRIPWIRE), b"Content-Length: " + length.encode()
            )
        )
    assert UNPICKLED == []


def test_an_endless_header_and_a_chunked_body(send: Send) -> None:
    send(post(DEFERRED, "X-AppEngine-TaskName: " + "t" * 300_000))
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(TRIPWIRE), TRIPWIRE)
    head = post(DEFERRED, *FORGED[0], "Transfer-Encoding: chunked", body=b"")
    send(head.replace(b"Content-Length: 0\r\n", b"") + chunked)
    assert UNPICKLED == []


def test_random_requests_and_the_server_still_serves(wrapped: Send) -> None:
    chance = random.Random(20261121)
    names = [line.partition(":")[0] for headers in FORGED for line in headers]
    for _ in range(300):
        path = chance.choice([DEFERRED, CUSTOM, "/page", "/_ah/queue/x"])
        headers = [
            f"{chance.choice(SPELLINGS)(chance.choice(names))}: "
            + "".join(chr(chance.choice([*range(32, 127), *range(160, 256)])) for _ in range(20))
            for _ in range(chance.randrange(6))
        ]
        request = bytearray(post(path, *headers))
        for _ in range(chance.randrange(4)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        wrapped(bytes(request))
    assert UNPICKLED == []
    wrapped(genuine())
    assert UNPICKLED == ["tripped"]
