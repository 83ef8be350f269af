"""What the fuzzers drive: each target takes any bytes, and fails if they did what none may do."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import os
import pickle
import sys
import time
import zoneinfo
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from google.appengine.ext import deferred

from appengine_compat.errors import ApiError
from appengine_compat.handler import door, oidc, oidc_keys, refusals, request_body, view
from appengine_compat.handler.refusals import Refused
from appengine_compat.local.fronts import grpc_protocol
from appengine_compat.local.fronts.http2_connection import MOST_STREAMS, Http2Connection
from appengine_compat.local.fronts.http2_frames import (
    HEAD_BYTES,
    PREFACE,
    SMALLEST_MAX_FRAME,
    ConnectionFault,
    NotHttp2Error,
)
from appengine_compat.payload import bounds, description, pickles, signing
from tests.fuzz import fuzz_app

APP = "tests.fuzz.fuzz_app"
SETTINGS = {
    "APPENGINE_COMPAT_SERVICE_ACCOUNT": "tasks@project.iam.gserviceaccount.com",
    "APPENGINE_COMPAT_AUDIENCE": "https://app.example.com",
    "APPENGINE_COMPAT_OIDC_ISSUER": "https://issuer.example.com",
    "APPENGINE_COMPAT_SIGNING_KEYS": "k:0123456789abcdef",
    "APPENGINE_COMPAT_ALLOWED_CALLABLES": APP,
}

# Whatever a payload that got through the bounds would do to this process shows in one of these.
_FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
    "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "shutil.rmtree",
    "exec", "code.__new__", "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip
_MOST_BODY_BYTES = 500
_watching = False
_is_hooked = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event in _FORBIDDEN_EVENTS:
        # Our own late imports execute modules; those of payloads are caught by ``bounded``.
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return
            frame = frame.f_back
        raise Executed(f"{event} {args!r:.200}")


class Executed(BaseException):
    """Something ran; no ``except Exception`` may hide it."""


class _NoKey:
    """A key whose owner signs nothing that a fuzzer can find."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        return False


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Take the settings above, and raise ``Executed`` at whatever a payload may not do."""
    global _watching, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_hook)  # for the life of the process: Python has no way to take it back
        _is_hooked = True
    before = {name: os.environ.get(name) for name in SETTINGS}
    known: Any = oidc_keys._KeySet({"a": _NoKey()}, time.monotonic() + 86400)  # type: ignore[dict-item]
    os.environ.update(SETTINGS)
    for module in (*bounds._PLAIN, "pytz.exceptions", "base64", "binascii"):
        # What payloads may name is imported before, so that an import shows.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    pickles.loads(pickle.dumps((fuzz_app.note, (zoneinfo.ZoneInfo("UTC"),), {}), 2))
    oidc_keys._key_sets[SETTINGS["APPENGINE_COMPAT_OIDC_ISSUER"]] = known
    # Names of keys that are not there fetch nothing meanwhile.
    oidc_keys._last_fetch[SETTINGS["APPENGINE_COMPAT_OIDC_ISSUER"]] = time.monotonic() + 86400
    _watching = True
    try:
        yield
    finally:
        _watching = False
        oidc_keys.forget()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def token(data: bytes) -> None:
    """The path of a bearer token: as it comes, and with its parts encoded rightly."""
    text = data.decode("latin-1")
    parts = data.split(b".", 2)
    encoded = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    header = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"a"}').decode()
    for candidate in (text, encoded, f"{header}.{encoded}", f"{header}.{encoded}.x"):
        try:
            oidc.verified_account(candidate, {"PATH_INFO": "/"})
        except Refused:
            continue
        raise AssertionError(f"{candidate!r} was believed")


def claims(data: bytes) -> None:
    """The checks after the signature, on any JSON."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict):
        return
    try:
        oidc._check_issuer(found, SETTINGS["APPENGINE_COMPAT_OIDC_ISSUER"])
        oidc._check_times(found, 1_800_000_000.0)
        oidc._check_audience(found, {})
        account = oidc._checked_account(found, (SETTINGS["APPENGINE_COMPAT_SERVICE_ACCOUNT"],))
    except Refused:
        return
    assert found["email"] == account
    assert found["aud"] == SETTINGS["APPENGINE_COMPAT_AUDIENCE"]
    assert found["email_verified"] is True
    assert found["exp"] > 1_799_999_000


def headers(data: bytes) -> None:
    """The door and the view of any environ: names and values by turns, split at line ends."""
    lines = data.decode("latin-1").split("\n")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/_ah/queue/deferred",
        "QUERY_STRING": "", "REMOTE_ADDR": "203.0.113.9", "wsgi.url_scheme": "http",
        "wsgi.input": _Unread(),
    }  # fmt: skip
    for line in lines:
        name, _, value = line.partition(":")
        key = name.upper().replace("-", "_")
        environ[key if key in _CGI else f"HTTP_{key}"] = value
    view.prepare(environ)
    assert not door.verdict(environ).trusted
    left = [
        name for name in environ if name.startswith((view.APP_ENGINE, view.CLOUD_TASKS, view.OURS))
    ]
    assert not left, left


_CGI = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD"})


class _Unread(io.BytesIO):
    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body of a request that nobody vouches for was read")


def signature(data: bytes) -> None:
    """The header of a signature, as it comes and as the whole of a genuine one but its digest."""
    texts = [data.decode("latin-1")]
    genuine = signing.sign(
        (("k", "0123456789abcdef"),), method="POST", url="/x", queue="q", task_name="t",
        body=b"", at=0,
    )  # fmt: skip
    head = genuine.rpartition("mac=")[0]
    texts.append(head + "mac=" + texts[0])
    for text in texts:
        try:
            signing.verify(
                text, (("k", "0123456789abcdef"),), method="POST", path=b"/x", query="",
                queue="q", task_name="t2", max_age_seconds=1e12, now=0,
            )  # fmt: skip
        except signing.SignatureError:
            continue
        raise AssertionError(f"{text!r} was believed")


def describe(data: bytes) -> None:
    """The description of a payload of unknown origin."""
    found = description.describe(data)
    assert found is None or len(str(found)) <= description.MAX_TEXT_CHARACTERS


def bounded(data: bytes) -> None:
    """The bounded unpickler: anything may be unreadable, nothing may run."""
    fuzz_app.CALLS.clear()
    before = set(sys.modules)
    call: Any = None
    args: Any = ()
    with contextlib.suppress(Exception):
        call, args, _ = pickles.loads(data)
    if call is deferred.invoke_member:
        owner, member = (*args, None, "")[:2]
        assert not isinstance(owner, ModuleType), owner
        assert member == "__call__" or not member.startswith("__"), member
    new = {name for name in sys.modules.keys() - before if not name.startswith("encodings.")}
    assert not new, new


def body(data: bytes) -> None:
    """The reading of a body: its length is the first line of the data."""
    length, _, rest = data.partition(b"\n")
    environ: dict[str, Any] = {
        "CONTENT_LENGTH": length.decode("latin-1"), "wsgi.input": io.BytesIO(rest),
    }  # fmt: skip
    with contextlib.suppress(request_body.BodyError):
        assert rest.startswith(request_body.read(environ))


def http2(data: bytes) -> None:
    """One HTTP/2 connection: its bytes as they come, after a preface, and in small pieces."""
    outcomes = []
    for first, step in ((data, 1 << 20), (PREFACE + data, 1 << 20), (PREFACE + data, 7)):
        connection = Http2Connection(grpc_protocol.read_head, _MOST_BODY_BYTES)
        received: list[Any] = []
        fault: Exception | None = None
        try:
            for at in range(0, len(first), step):
                received += connection.receive(first[at : at + step])
        except (ConnectionFault, NotHttp2Error) as error:
            fault = error
        assert len(connection._rest) <= HEAD_BYTES + SMALLEST_MAX_FRAME or fault is not None
        assert connection.under_way <= MOST_STREAMS
        assert len({each.stream for each in received}) == len(received)
        for each in received:
            assert each.body is None or len(each.body) <= _MOST_BODY_BYTES
            with contextlib.suppress(ApiError):
                grpc_protocol.read_message(each.head, each.body)
            connection.reply(each.stream, grpc_protocol.REPLY_HEAD, bytes(70_000), b"\x88")
        assert len(connection.take_output()) <= 2**21 + 100 * len(first) + 70_200 * len(received)
        outcomes.append((received if fault is None else None, type(fault)))
    # However it is cut into pieces, it is the same.
    assert outcomes[1] == outcomes[2]


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (token, claims, headers, signature, describe, bounded, body, http2)
}

refusals._log.disabled = "atheris" in sys.modules  # nobody reads a million lines
