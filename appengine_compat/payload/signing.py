"""Signed tasks: who holds a key made this request, and nobody has changed it since.

The signature travels in a header of its own, so that the body stays a pickle which Google's SDK
reads. It covers the method, the path with query, the queue, the task's name where the enqueuer
chose one, the moment from which its age counts, and the length and SHA-256 of the body. Of the
body only the digest: so a forged header is known as one before a byte of the body is read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from appengine_compat import settings
from appengine_compat.errors import ConfigError

HEADER = "X-AEC-Signature"

OFF = "off"
ACCEPT_UNSIGNED = "accept-unsigned"
REQUIRE = "require"

Keys = Sequence[tuple[str, str]]
"""Pairs of a key's id and its secret; the first signs."""

_PURPOSE = b"appengine-compat signed task 1"
_FORM = re.compile(
    r"v1 key=(?P<key>[A-Za-z0-9_.~%\-]{1,600}) at=(?P<at>[0-9]{1,12}) name=(?P<name>fixed|any)"
    r" length=(?P<length>[0-9]{1,9}) sha256=(?P<sha256>[0-9a-f]{64}) mac=(?P<mac>[0-9a-f]{64})"
)


class Fault(Enum):
    """Why a signature is not believed."""

    MALFORMED = "it is not of the form that signatures have"
    KEY = "no key of this id is known"
    MISMATCH = "it was made for another request, or with another secret"
    AGE = "it is past its age"


class SignatureError(ValueError):
    """A signature is not believed; never leaves the package.

    Attributes:
        fault: which check failed.
        detail: more for the log.
    """

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Signed:
    """What a genuine signature says; the body is still to be compared with it."""

    key_id: str
    length: int
    sha256: str

    def fits(self, body: bytes) -> bool:
        """Tell whether this is the body that was signed."""
        digest = hashlib.sha256(body).hexdigest()
        return len(body) == self.length and hmac.compare_digest(digest, self.sha256)


def mode() -> str:
    """Return what holds now for signatures: ``off``, ``accept-unsigned`` or ``require``.

    The setting; where it is not set, ``require`` for the rq backend, else ``accept-unsigned``
    as soon as there are keys.

    Raises:
        ConfigError: a setting's value is not allowed.
    """
    # Asked at every request, and nearly everywhere nothing of it is set.
    if not (
        settings.SIGNING_KEYS.is_set_for_process
        or settings.SIGNATURES.is_set_for_process
        or settings.BACKEND.is_set_for_process
    ):
        return OFF
    return policy().mode


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say of signatures."""

    mode: str
    keys: tuple[tuple[str, str], ...]
    max_age_seconds: float


_policy: tuple[tuple[object, ...], Policy] | None = None


def policy() -> Policy:
    """Return what the settings say now; read once for as long as none of them changes.

    Raises:
        ConfigError: a setting's value is not allowed.
    """
    global _policy
    fingerprint = settings.fingerprint()
    known = _policy
    if known is None or known[0] != fingerprint:
        keys = settings.SIGNING_KEYS.get()
        chosen = settings.SIGNATURES.get()
        if chosen is None:
            otherwise = ACCEPT_UNSIGNED if keys else OFF
            chosen = REQUIRE if settings.BACKEND.get() == "rq" else otherwise
        known = (fingerprint, Policy(chosen, keys, settings.SIGNATURE_MAX_AGE.get()))
        _policy = known
    return known[1]


def header_for(
    *, method: str, url: str, queue: str, task_name: str, body: bytes, at: float | None = None
) -> Mapping[str, str]:
    """Return the header that a task is enqueued with, as the settings say.

    Args:
        method: the HTTP method.
        url: path with query as it will arrive, or a whole URL.
        queue: the queue's id.
        task_name: the task's id, or "" where whoever dispatches it chooses one.
        body: the body, raw.
        at: the moment from which the age counts, in seconds since the epoch: when the task is
            first to run. None for now.

    Returns:
        ``{HEADER: signature}``; empty where signatures are off.

    Raises:
        ConfigError: signatures are required, and there is no key to sign with.
    """
    holds = mode()
    if holds == OFF:
        return {}
    keys = policy().keys
    if not keys:
        if holds == REQUIRE:
            raise missing_keys()
        return {}
    return {
        HEADER: sign(
            keys,
            method=method,
            url=url,
            queue=queue,
            task_name=task_name,
            body=body,
            at=max(time.time() if at is None else at, 0.0),
        )
    }


def missing_keys() -> ConfigError:
    """Return the error of signatures that are required while there are no keys."""
    return ConfigError(
        f"Tasks must be signed here, and there is no key to sign with: set "
        f"{settings.SIGNING_KEYS.variable} to {settings.SIGNING_KEYS.allowed}, the same where "
        "tasks are enqueued and where they run.",
        setting=settings.SIGNING_KEYS.variable,
    )


def sign(
    keys: Keys, *, method: str, url: str, queue: str, task_name: str, body: bytes, at: float
) -> str:
    """Return the signature of a request, made with the first key.

    Args:
        keys: at least one.
        method: the HTTP method.
        url: path with query, or a whole URL, quoted as it will be sent.
        queue: the queue's id.
        task_name: the task's id, or "" to let it be any.
        body: the body, raw.
        at: the moment from which the age counts, in seconds since the epoch.
    """
    # Here, since the door is loaded with every app, and few sign.
    from urllib.parse import quote

    key_id, secret = keys[0]
    moment, length = str(int(at)), str(len(body))
    digest = hashlib.sha256(body).hexdigest()
    kind = "fixed" if task_name else "any"
    path, query = _path_and_query(url)
    mac = _mac(secret, key_id, method, path, query, queue, kind, task_name, moment, length, digest)
    shown = quote(key_id, safe="")
    return f"v1 key={shown} at={moment} name={kind} length={length} sha256={digest} mac={mac}"


def verify(
    signature: str,
    keys: Keys,
    *,
    method: str,
    path: bytes,
    query: str,
    queue: str,
    task_name: str,
    max_age_seconds: float,
    now: float,
) -> Signed:
    """Return what a signature says of the body, once everything else of the request fits it.

    Args:
        signature: the header's value.
        keys: those that are believed.
        method: the request's method.
        path: its whole path, decoded.
        query: its query, as it came.
        queue: the queue's id that it names.
        task_name: the task's id that it names.
        max_age_seconds: how old the signature may be.
        now: seconds since the epoch.

    Raises:
        SignatureError: with the check that failed.
    """
    from urllib.parse import unquote

    form = _FORM.fullmatch(signature)
    if form is None:
        raise SignatureError(Fault.MALFORMED)
    key_id = unquote(form["key"])
    secret = dict(keys).get(key_id)
    if secret is None:
        raise SignatureError(Fault.KEY, f"the key is {key_id!r:.100}")
    kind = form["name"]
    expected = _mac(
        secret, key_id, method, path, query, queue, kind, task_name if kind == "fixed" else "",
        form["at"], form["length"], form["sha256"],
    )  # fmt: skip
    if not hmac.compare_digest(expected, form["mac"]):
        raise SignatureError(Fault.MISMATCH)
    # After the digest, so that only what a key holder wrote is told of as too old.
    age = now - int(form["at"])
    if age > max_age_seconds:
        raise SignatureError(Fault.AGE, f"it is {age:.0f} seconds old")
    return Signed(key_id, int(form["length"]), form["sha256"])


def _path_and_query(url: str) -> tuple[bytes, str]:
    from urllib.parse import unquote_to_bytes, urlsplit

    parts = urlsplit(url if "://" in url.partition("?")[0] else "//host" + _rooted(url))
    return unquote_to_bytes(parts.path or "/"), parts.query


def _rooted(url: str) -> str:
    return url if url.startswith("/") else "/" + url


def _mac(secret: str, key_id: str, method: str, path: bytes, query: str, *rest: str) -> str:
    message = bytearray(_PURPOSE)
    texts = (key_id, method.upper(), *rest, query)
    # Each part is preceded by its length: no two requests share an encoding.
    for part in (path, *(text.encode("utf-8", "surrogatepass") for text in texts)):
        message += len(part).to_bytes(4, "big") + part
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), message, "sha256").hex()
