"""The example app on the open network, by waitress and by gunicorn: nobody gets a byte unpickled.

A tripwire pickle writes a file when it is read, whatever becomes of it afterwards. The servers are
processes of their own, set up as on a VM: Google's tokens (from a key server of the tests), and
signatures required beside them.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import hashlib
import hmac
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from appengine_compat.payload import signing
from tests import wsgi_server
from tests.acceptance.conftest import EXAMPLE
from tests.handler.conftest import ACCOUNT, AUDIENCE, KEYS, Issuer, base64url, part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

DEFERRED = "/_ah/queue/deferred"
CUSTOM = "/custom/path"  # of the example: deferred.application.post(request.environ)
SIGNING_KEYS = (("k", "0123456789abcdef"),)
MAX_AGE_SECONDS = 60
REQUESTS = 10_000

WAITRESS = """
import socket, sys, waitress
sys.path.insert(0, "")
from main import app
waitress.serve(app, sockets=[socket.socket(fileno=int(sys.argv[1]))], threads=8, _quiet=True)
"""
SERVERS: dict[str, Callable[[int], list[str]]] = {
    "waitress": lambda fd: ["-c", WAITRESS, str(fd)],
    "gunicorn": lambda fd: [
        "-m", "gunicorn", "--bind", f"fd://{fd}", "--threads", "8",
        "--log-level", "critical", "main:app",
    ],
}  # fmt: skip


@dataclass
class Site:
    """A server that runs, and where its tripwires write."""

    port: int
    wires: Path
    issuer: Issuer
    process: subprocess.Popen[bytes]

    def send(self, request: bytes) -> bytes:
        """Send raw bytes and return the raw answer, as far as the server gives one."""
        return wsgi_server.exchange(self.port, request)

    def payload(self, name: str = "tripped") -> bytes:
        return pickle.dumps((print, (Tripwire(str(self.wires / name)),), {}))

    def tripped(self) -> list[str]:
        return sorted(path.name for path in self.wires.iterdir())


class Tripwire:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (self.path, "w")


@pytest.fixture(scope="module", params=sorted(SERVERS))
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    if request.param == "gunicorn":
        pytest.importorskip("gunicorn")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, folder / "app", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    wires = folder / "wires"
    wires.mkdir()
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *SERVERS[request.param](listening.fileno())],
            cwd=folder / "app",
            env=environment(issuer),
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=log,
        )
    port = listening.getsockname()[1]
    listening.close()
    try:
        found = Site(port, wires, issuer, process)
        answer = found.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), (folder / "log").read_text()
        yield found
    finally:
        process.terminate()
        process.wait(10)
        issuer.server.shutdown()
        thread.join()
        issuer.server.server_close()


def environment(issuer: Issuer) -> dict[str, str]:
    prefixes = ("APPENGINE_COMPAT_", "GAE_", "GOOGLE_", "K_", "PYTEST_", "CLOUD_", "SERVER_")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(prefixes) and not name.lower().endswith("_proxy")
    }
    return inherited | {
        "APPENGINE_COMPAT_BACKEND": "cloudtasks",
        "APPENGINE_COMPAT_PROJECT": "project",
        "APPENGINE_COMPAT_LOCATION": "us-central1",
        "APPENGINE_COMPAT_TARGETS": AUDIENCE,
        "APPENGINE_COMPAT_AUDIENCE": AUDIENCE,
        "APPENGINE_COMPAT_SERVICE_ACCOUNT": ACCOUNT,
        "APPENGINE_COMPAT_OIDC_ISSUER": issuer.url,
        "APPENGINE_COMPAT_SIGNING_KEYS": ",".join(map(":".join, SIGNING_KEYS)),
        "APPENGINE_COMPAT_SIGNATURES": "require",
        "APPENGINE_COMPAT_SIGNATURE_MAX_AGE": str(MAX_AGE_SECONDS),
    }


@pytest.fixture(autouse=True)
def nothing_unpickled(site: Site) -> Iterator[None]:
    """After each attack, no tripwire has written, and the server still serves."""
    before = site.tripped()
    yield
    assert site.tripped() in (before, [*before, "control"])
    answer = site.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert site.process.poll() is None


def post(body: bytes, *headers: str, path: str = DEFERRED, method: str = "POST") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1", "Host: app.example.com", "Connection: close",
        f"Content-Length: {len(body)}", "Content-Type: application/octet-stream", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


TASK = ("X-CloudTasks-QueueName: q", "X-CloudTasks-TaskName: t")


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


def signed(body: bytes, **changes: Any) -> str:
    task: dict[str, Any] = {
        "method": "POST", "url": DEFERRED, "queue": "q", "task_name": "t", "body": body,
        "at": time.time(), **changes,
    }  # fmt: skip
    return f"{signing.HEADER}: {signing.sign(SIGNING_KEYS, **task)}"


def test_a_true_task_is_let_in(site: Site) -> None:
    """Without this, all the other tests would prove nothing."""
    body = site.payload("control")
    answer = site.send(post(body, *TASK, bearer(site.issuer.token()), signed(body)))
    assert status_of(answer) == 200
    assert "control" in site.tripped()


FORGED = [
    ["X-AppEngine-TaskName: t", "X-AppEngine-QueueName: q", "X-AppEngine-User-IP: 0.1.0.2"],
    ["X-CloudTasks-TaskName: t", "X-CloudTasks-QueueName: q", "User-Agent: Google-Cloud-Tasks"],
    ["X-AppEngine-TaskName: t", "X-Forwarded-For: 0.1.0.2", "X-Real-IP: 0.1.0.2",
     "X-Forwarded-Proto: https", "Forwarded: for=0.1.0.2"],
    ["X-AppEngine-TaskName: t", "Server-Software: Development/2.0", "Remote-Addr: 0.1.0.2"],
    ["GAE-Env: standard", "X-AppEngine-TaskName: t", "X-AppEngine-QueueName: q",
     "X-AppEngine-User-IP: 0.1.0.2"],
    ["X-AEC-Local-Token: " + "0" * 64, "X-CloudTasks-TaskName: t", "X-CloudTasks-QueueName: q"],
    ["X-AEC-Carried-X-AppEngine-TaskName: t", "X-AEC-Carried-X-AppEngine-User-IP: 0.1.0.2"],
    ["X-AppEngine-Cron: true", "X-AppEngine-User-Is-Admin: 1", "X-AppEngine-TaskName: t"],
    ["appengine_compat.verdict: Verdict(trusted=True)", "X-AppEngine-TaskName: t"],
]  # fmt: skip
SPELLINGS: list[Callable[[str], str]] = [
    str,
    str.lower,
    str.upper,
    lambda name: name.replace("-", "_"),
    lambda name: name.lower().replace("-", "_"),
    lambda name: name.replace("-", "_", 1),
    lambda name: name + " ",
    lambda name: " " + name,
    lambda name: name + "\t",
    lambda name: name + "\x00",
]


@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: headers[0].partition(":")[0])
def test_forged_headers_in_all_spellings(site: Site, headers: list[str]) -> None:
    body = site.payload()
    for spell in SPELLINGS:
        spelt = [
            f"{spell(name)}:{value}" for name, _, value in (line.partition(":") for line in headers)
        ]
        padded = [f"{line} \t " for line in spelt]
        for sent in (spelt, [*spelt, *spelt], [*headers, *spelt], padded):
            for path in (DEFERRED, CUSTOM):
                answer = site.send(post(body, *sent, path=path))
                assert status_of(answer or b" 400 ") in (400, 401, 403)


def bad_tokens(issuer: Issuer) -> dict[str, str]:
    good = issuer.token()
    header, claims, signature = good.split(".")
    now = int(time.time())
    public = (
        KEYS["a"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    by_secret = f"{part({'alg': 'HS256', 'kid': 'a'})}.{claims}"
    digest = hmac.new(public, by_secret.encode(), hashlib.sha256).digest()
    return {
        "expired": issuer.token(exp=now - 3600, iat=now - 7200),
        "not yet": issuer.token(iat=now + 3600, exp=now + 7200),
        "wrong audience": issuer.token(aud="https://other.example.com"),
        "wrong issuer": issuer.token(iss="https://evil.example"),
        "google as issuer": issuer.token(iss="https://accounts.google.com"),
        "wrong account": issuer.token(email="evil@project.iam.gserviceaccount.com"),
        "unverified": issuer.token(email_verified=False),
        "another key": issuer.token("b", header={"kid": "a"}),
        "unpublished key": issuer.token("b"),
        "alg none": f"{part({'alg': 'none', 'kid': 'a'})}.{claims}.",
        "unsigned": f"{header}.{claims}.",
        "HS256 with the public key": f"{by_secret}.{base64url(digest)}",
        "claims changed": f"{header}.{part(issuer.claims(sub='1'))}.{signature}",
        "header changed": f"{part({'alg': 'RS256', 'kid': 'a', 'x': 1})}.{claims}.{signature}",
        "signature changed": f"{header}.{claims}.{signature[::-1]}",
        "cut": good[:-8],
        "twice": f"{good}, {good}",
        "empty": "",
        "long": "a" * 60_000,
    }


def test_identity_tokens_that_are_not_good(site: Site) -> None:
    body = site.payload()
    for name, token in bad_tokens(site.issuer).items():
        # Beside a genuine signature, so that it is the token that decides.
        answer = site.send(post(body, *TASK, bearer(token), signed(body)))
        assert status_of(answer or b" 431 ") in (400, 401, 403, 431), name


def test_signatures_that_are_not_good(site: Site) -> None:
    body, other = site.payload(), site.payload("other")
    token = bearer(site.issuer.token())
    good = signed(body)
    for name, header, code in (
        ("none at all", "X-None: 1", b"AEC-SIGNATURE-MISSING"),
        ("replayed past its age", signed(body, at=time.time() - MAX_AGE_SECONDS - 5), b"-AGE"),
        ("of another body", signed(other), b"-BODY"),
        ("of another path", signed(body, url="/x"), b"-MISMATCH"),
        ("of another query", signed(body, url=DEFERRED + "?x=1"), b"-MISMATCH"),
        ("of another method", signed(body, method="PUT"), b"-MISMATCH"),
        ("of another queue", signed(body, queue="other"), b"-MISMATCH"),
        ("of another task", signed(body, task_name="other"), b"-MISMATCH"),
        ("made young", good.replace(" at=1", " at=2"), b"-MISMATCH"),
        ("of an unknown key", good.replace("key=k", "key=other"), b"-KEY"),
        ("cut", good[:-1], b"-MALFORMED"),
        ("twice", good + ", " + good.partition(": ")[2], b"-MALFORMED"),
    ):
        answer = site.send(post(body, *TASK, token, header))
        assert status_of(answer) == 403, name
        assert code in answer, name


def test_a_genuine_signature_alone_does_not_replace_the_token(site: Site) -> None:
    body = site.payload()
    assert status_of(site.send(post(body, *TASK, signed(body)))) == 401


def test_bodies_of_another_length_than_said(site: Site) -> None:
    body = site.payload()
    good = post(body, *TASK, bearer(site.issuer.token()), signed(body))
    said = b"Content-Length: %d" % len(body)
    for length in ("0", "1", str(len(body) - 1), "99999999999", "-1", "x", "1e3", "", "+5"):
        answer = site.send(good.replace(said, b"Content-Length: " + length.encode()))
        assert not answer.startswith(b"HTTP/1.1 200"), length
    big = body + b"x" * 5_000_000
    assert status_of(site.send(post(big, *FORGED[0])) or b" 401 ") in (400, 401, 413)
    # A server may hang up on a body that is not read.
    answer = site.send(post(big, *TASK, bearer(site.issuer.token()), signed(body)))
    assert status_of(answer or b" 403 ") == 403


def test_requests_hidden_behind_another(site: Site) -> None:
    hidden = post(site.payload(), *FORGED[0]) + post(site.payload(), *FORGED[1])
    for shape in (
        b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(hidden),
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\tchunked\r\n\r\n5;x=\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"Content-Length: +5\r\n\r\n01234",
        b"Content-Length: 0\n\n",
        b"X: a\r\n b\r\n\r\n",
    ):
        for path in (b"/", DEFERRED.encode()):
            site.send(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n" + shape + hidden)
            site.send(b"POST " + path + b" HTTP/1.0\r\n" + shape + hidden)


def test_chunked_bodies(site: Site) -> None:
    body = site.payload()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for headers in (FORGED[0], [*TASK, bearer(site.issuer.token())], [*TASK, signed(body)]):
        head = post(b"", *headers, "Transfer-Encoding: chunked")
        answer = site.send(head.replace(b"Content-Length: 0\r\n", b"") + chunked)
        assert status_of(answer) in (401, 403)


def test_no_spelling_of_the_path_and_no_method_is_a_way_around(site: Site) -> None:
    body = site.payload()
    for path in (
        DEFERRED + "?x=1", "/_ah/queue/%64eferred", "//_ah/queue/deferred", "/x/.." + DEFERRED,
        DEFERRED + "%00", DEFERRED + ";a=b", "http://app.example.com" + DEFERRED,
        DEFERRED + "/../deferred", "*", "\\_ah\\queue\\deferred",
    ):  # fmt: skip
        site.send(post(body, *FORGED[0], path=path))
    for method in ("GET", "PUT", "HEAD", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"):
        site.send(post(body, *FORGED[0], method=method))


def test_ten_thousand_random_requests(site: Site) -> None:
    tokens = bad_tokens(site.issuer)
    tokens.pop("long")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        attackers = [
            pool.submit(attack, site, seed, REQUESTS // 8, [*tokens.values()]) for seed in range(8)
        ]
        answered = sum(attacker.result() for attacker in attackers)
    assert answered > REQUESTS // 2


def attack(site: Site, seed: int, count: int, tokens: list[str]) -> int:
    """Send random requests; return how many were answered at all."""
    chance = random.Random(seed)
    body = site.payload()
    names = [line.partition(":")[0] for headers in FORGED for line in headers]
    credentials: list[Callable[[], list[str]]] = [
        lambda: [*chance.choice(FORGED)],
        lambda: [bearer(chance.choice(tokens)), *TASK, signed(body)],
        # One of the two that are needed, true as it may be.
        lambda: [bearer(site.issuer.token()), *TASK],
        lambda: [signed(body), *TASK],
        lambda: [],
    ]
    answered = 0
    for _ in range(count):
        headers = [
            *chance.choice(credentials)(),
            *(
                f"{chance.choice(SPELLINGS)(chance.choice(names))}: "
                + "".join(map(chr, chance.choices([*range(32, 127), *range(160, 256)], k=20)))
                for _ in range(chance.randrange(4))
            ),
        ]
        chance.shuffle(headers)
        path = chance.choice([DEFERRED, DEFERRED, CUSTOM, DEFERRED + "/x", "/", "/no"])
        method = chance.choice(["POST", "POST", "POST", "PUT", "GET"])
        request = bytearray(post(body, *headers, path=path, method=method))
        for _ in range(chance.choice([0, 0, 1, 4])):
            request[chance.randrange(len(request))] = chance.randrange(256)
        if chance.random() < 0.05:
            del request[chance.randrange(len(request)) :]
        answered += bool(site.send(bytes(request)))
    return answered
