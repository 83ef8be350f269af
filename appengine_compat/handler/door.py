"""The door: who sent this request, and may they be believed to be a task queue?

Whoever is let in has their bytes unpickled, which is to run code for them. So the door is closed
unless one of these opens it, and it is asked before a byte of the body is looked at:

- the local service's own token, bound to the database, the queue, the task and the path;
- App Engine, when the program runs there and the connection comes from its front end;
- an OIDC token that Google signed for an account on the list and for this audience;
- a signature over the whole task, with a key that this service has: alone where there is none
  of the above, else beside them;
- an active test stub, by the rule that App Engine's own handler had.

Headers are chosen by clients; the platform and the transport's address are not. No header
counts by itself, except where the platform is known to remove it from everyone else's requests.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from appengine_compat import platform, settings
from appengine_compat.handler import refusals
from appengine_compat.handler.refusals import Refused
from appengine_compat.local import tokens

VERDICT_KEY = "appengine_compat.verdict"
ADDRESS_KEY = "appengine_compat.transport_address"
"""Where the transport's address is kept once ``REMOTE_ADDR`` was rewritten for old code."""

TASK_ADDRESS = "0.1.0.2"

_SIGNATURE = "HTTP_X_AEC_SIGNATURE"
_LOCAL_TOKEN = "HTTP_X_AEC_LOCAL_TOKEN"
_FRONT_END_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "169.254.0.0/16",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fe80::/10",
        "fc00::/7",
    )
)

Environ = MutableMapping[str, Any]


class Trust(Enum):
    """By what a request is known to be a task."""

    APP_ENGINE = "App Engine"
    OIDC = "OIDC token"
    LOCAL = "local service"
    TEST = "test stub"
    SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the door says about a request."""

    trusted: bool
    known_by: Trust | None = None
    """None when refused."""
    who: str = ""
    """The account, or the kind of sender."""
    status: int = 0
    """401 or 403 when refused, else 0."""
    code: str = ""
    """``AEC-…`` when refused."""
    reason: str = ""
    """The check that failed and what mends it; safe to show to anyone."""

    @property
    def text(self) -> str:
        """The plain-text body of a refusal."""
        return f"{self.code}: {self.reason}\n"


_LOCAL_TASK = Verdict(True, Trust.LOCAL, "the local service")
_TEST_TASK = Verdict(True, Trust.TEST, "the test stub")

_tests_trusted = False
_test_conditions: list[Callable[[], bool]] = []


def trust_tests(enabled: bool) -> None:
    """Believe requests by App Engine's old rule, or stop to; for test stubs while they are active.

    The rule: ``X-AppEngine-TaskName`` is there, and the server is a development server or the
    request's ``REMOTE_ADDR`` is 0.1.0.2. Anyone could fulfil it over a network.
    """
    global _tests_trusted
    _tests_trusted = enabled


def trust_tests_while(condition: Callable[[], bool]) -> None:
    """Believe requests by App Engine's old rule whenever a condition holds.

    For stubs whose beginning and end another library decides: the testbed of Google's SDK.
    """
    if condition not in _test_conditions:
        _test_conditions.append(condition)


def tests_are_trusted() -> bool:
    """Tell whether a test stub is active."""
    return _tests_trusted or any(condition() for condition in _test_conditions)


def verdict(environ: Environ) -> Verdict:
    """Tell whether a request is a task that may be believed.

    Remembered in the environ, so that a custom route behind ``wrap_wsgi_app`` is not verified
    twice. The key has no ``HTTP_`` prefix and the value must be a ``Verdict``: no header of a
    client can become one.

    Args:
        environ: the request's WSGI environ, before anything rewrote its ``REMOTE_ADDR``.
    """
    known = environ.get(VERDICT_KEY)
    if type(known) is Verdict:
        return known
    try:
        found = _judged(environ)
    except Refused as refused:
        refusal = refused.refusal
        found = Verdict(False, None, "", refusal.status, refusal.code, refusal.reason)
        refusals.note(
            refusal,
            environ.get("REQUEST_METHOD", ""),
            request_path(environ),
            transport_address(environ),
            refused.detail,
        )
    environ[VERDICT_KEY] = found
    return found


def request_path(environ: Environ) -> str:
    """Return the whole path of a request, as WSGI strings go."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path


def transport_address(environ: Environ) -> str:
    """Return the address that the connection came from, whatever headers say."""
    kept = environ.get(ADDRESS_KEY)
    address: str = kept[0] if type(kept) is tuple else environ.get("REMOTE_ADDR") or ""
    return address


def rewrite_address(environ: Environ, address: str) -> None:
    """Let old code see another ``REMOTE_ADDR``, and keep the transport's own for the door."""
    if ADDRESS_KEY not in environ:
        # No text, for the texts of an environ are variables of old code.
        environ[ADDRESS_KEY] = (environ.get("REMOTE_ADDR") or "",)
    environ["REMOTE_ADDR"] = address


@lru_cache(maxsize=256)
def is_front_end(address: str) -> bool:
    """Tell whether a transport address can be App Engine's front end.

    It reaches the program through a proxy on the same host or on a private network, so a public
    address shows that the program is reachable by another way. "" is a Unix socket.
    """
    if not address:
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in _FRONT_END_NETWORKS)


def _judged(environ: Environ) -> Verdict:
    token = environ.get(_LOCAL_TOKEN)
    if token is not None:
        return _by_local_token(token, environ)

    refused = None
    if tests_are_trusted():
        try:
            return _by_test_rule(environ)
        except Refused as refusal:
            refused = refusal
    is_signed = _SIGNATURE in environ
    if is_signed:
        from appengine_compat.handler import signed

        if signed.suffices():
            return Verdict(True, Trust.SIGNATURE, f"key {signed.check(environ)}")
    if _claims_app_engine(environ) and platform.detect() is platform.Platform.APP_ENGINE:
        try:
            return _beside_signature(_by_app_engine(environ), environ)
        except Refused as refusal:
            refused = refused or refusal
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if authorization[:7].lower() == "bearer ":
        return _beside_signature(_by_oidc(authorization[7:].strip(), environ), environ)
    if is_signed and not settings.SIGNING_KEYS.get():
        raise refused or Refused(refusals.SIGNATURE_NO_KEYS)
    raise refused or Refused(refusals.NO_CREDENTIALS)


def _claims_app_engine(environ: Environ) -> bool:
    return "HTTP_X_APPENGINE_TASKNAME" in environ or "HTTP_X_APPENGINE_QUEUENAME" in environ


def _by_local_token(token: str, environ: Environ) -> Verdict:
    genuine = tokens.is_genuine(
        token,
        queue_id=_task_header(environ, "QUEUENAME"),
        task_id=_task_header(environ, "TASKNAME"),
        path=request_path(environ),
    )
    if not genuine:
        raise Refused(refusals.LOCAL_TOKEN)
    return _LOCAL_TASK


def _beside_signature(verdict: Verdict, environ: Environ) -> Verdict:
    # Nearly everywhere nothing of it is set, and then nothing of it is loaded.
    if (
        settings.SIGNING_KEYS.is_set_for_process
        or settings.SIGNATURES.is_set_for_process
        or settings.BACKEND.is_set_for_process
    ):
        from appengine_compat.handler import signed

        signed.check_beside(environ, verdict.who)
    return verdict


def _task_header(environ: Environ, name: str) -> str:
    value: str = environ.get("HTTP_X_CLOUDTASKS_" + name) or environ.get(
        "HTTP_X_APPENGINE_" + name, ""
    )
    return value


def _by_app_engine(environ: Environ) -> Verdict:
    queue = environ.get("HTTP_X_APPENGINE_QUEUENAME")
    if not queue or not environ.get("HTTP_X_APPENGINE_TASKNAME"):
        raise Refused(refusals.APP_ENGINE_INCOMPLETE)
    address = transport_address(environ)
    if address != TASK_ADDRESS:
        if not is_front_end(address):
            raise Refused(refusals.APP_ENGINE_ADDRESS)
        # Only now may this header be read: the front end sets it on every request, while it
        # lets the task headers of the app's own administrators pass.
        source = environ.get("HTTP_X_APPENGINE_USER_IP", "")
        if source != TASK_ADDRESS:
            raise Refused(refusals.APP_ENGINE_SOURCE, f"X-AppEngine-User-IP is {source!r}")
    return _app_engine_task(queue)


@lru_cache(maxsize=256)
def _app_engine_task(queue: str) -> Verdict:
    return Verdict(True, Trust.APP_ENGINE, f"App Engine's queue {queue}")


def _by_test_rule(environ: Environ) -> Verdict:
    if "HTTP_X_APPENGINE_TASKNAME" not in environ:
        raise Refused(refusals.NOT_A_TASK)
    is_development = str(environ.get("SERVER_SOFTWARE", "")).startswith("Devel")
    if not is_development and environ.get("REMOTE_ADDR") != TASK_ADDRESS:
        raise Refused(refusals.NOT_FROM_QUEUE)
    return _TEST_TASK


def _by_oidc(token: str, environ: Environ) -> Verdict:
    from appengine_compat.handler import oidc

    return Verdict(True, Trust.OIDC, oidc.verified_account(token, environ))
