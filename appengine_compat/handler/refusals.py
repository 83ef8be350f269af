"""Why the door refuses: one table of codes, and how often each was used.

The public text of a refusal names the check that failed and the setting or role that mends it.
What was expected instead would help an attacker, and goes to the log only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass

_log = logging.getLogger("appengine_compat.handler")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way to be refused."""

    code: str
    """Stable; documented in docs/security.md."""
    status: int
    """401 when nothing was shown, 403 when what was shown is wrong."""
    reason: str
    """What a caller may know."""


class Refused(Exception):
    """Raised by a check of the door that says no; never leaves the room.

    Attributes:
        refusal: which one.
        detail: more for the log, never for the caller.
    """

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
        self.detail = detail


NO_CREDENTIALS = Refusal(
    "AEC-NO-CREDENTIALS",
    401,
    "this address is for tasks, and nothing in the request shows that it is one. Off App Engine, "
    "Cloud Tasks shows it by an OIDC token: set APPENGINE_COMPAT_SERVICE_ACCOUNT here and where "
    "the task is enqueued.",
)
NOT_A_TASK = Refusal(
    "AEC-TEST-NO-TASK",
    403,
    "Detected an attempted XSRF attack. The header 'X-AppEngine-Taskname' was not set.",
)
NOT_FROM_QUEUE = Refusal(
    "AEC-TEST-ADDRESS",
    403,
    "Detected an attempted XSRF attack. This request did not originate from Task Queue.",
)
LOCAL_TOKEN = Refusal(
    "AEC-LOCAL-TOKEN",
    403,
    "the local service's token is not one made for this task, this path and this database. The "
    "app and the local service must use the same database: see APPENGINE_COMPAT_DB.",
)
APP_ENGINE_INCOMPLETE = Refusal(
    "AEC-APP-ENGINE-HEADERS",
    403,
    "App Engine's task headers X-AppEngine-QueueName and X-AppEngine-TaskName did not both come. "
    "Only its own queues send them: enqueue the task, with this service as appengine in "
    "APPENGINE_COMPAT_TARGETS.",
)
APP_ENGINE_ADDRESS = Refusal(
    "AEC-APP-ENGINE-ADDRESS",
    403,
    "the connection does not come from App Engine's own front end. If this is not App Engine, "
    "unset GAE_ENV, GAE_APPLICATION and GAE_INSTANCE.",
)
APP_ENGINE_SOURCE = Refusal(
    "AEC-APP-ENGINE-SOURCE",
    403,
    "App Engine does not say that this request comes from its task queues. Administrators cannot "
    "send one by hand: enqueue it, with this service as appengine in APPENGINE_COMPAT_TARGETS.",
)
OIDC_NO_ACCOUNT = Refusal(
    "AEC-OIDC-NO-ACCOUNT-SET",
    403,
    "a bearer token came, but this service believes no account yet. Set "
    "APPENGINE_COMPAT_SERVICE_ACCOUNT to the service account that tasks come as.",
)
OIDC_MALFORMED = Refusal(
    "AEC-OIDC-MALFORMED",
    403,
    "the bearer token is not a signed JSON Web Token (an access token is none). Set "
    "APPENGINE_COMPAT_SERVICE_ACCOUNT where the task is enqueued, and Cloud Tasks sends one.",
)
OIDC_ALGORITHM = Refusal(
    "AEC-OIDC-ALGORITHM",
    403,
    "the token is not signed with RS256, as Google's are. The issuer of "
    "APPENGINE_COMPAT_OIDC_ISSUER must sign with it too.",
)
OIDC_KEY = Refusal(
    "AEC-OIDC-KEY",
    403,
    "the token names a key that its issuer does not publish. For another issuer than Google, set "
    "APPENGINE_COMPAT_OIDC_ISSUER.",
)
OIDC_KEYS_UNREACHABLE = Refusal(
    "AEC-OIDC-KEYS-UNREACHABLE",
    403,
    "the issuer's keys could not be fetched, so the token cannot be checked. Allow this service "
    "to reach them (www.googleapis.com, or the address of APPENGINE_COMPAT_OIDC_ISSUER).",
)
OIDC_SIGNATURE = Refusal(
    "AEC-OIDC-SIGNATURE",
    403,
    "the token's signature does not fit its content. It must be one of Google's, or of the issuer "
    "of APPENGINE_COMPAT_OIDC_ISSUER, handed on unchanged.",
)
OIDC_ISSUER = Refusal(
    "AEC-OIDC-ISSUER",
    403,
    "the token was not issued by Google, nor by the issuer of APPENGINE_COMPAT_OIDC_ISSUER.",
)
OIDC_EXPIRED = Refusal(
    "AEC-OIDC-EXPIRED",
    403,
    "the token is past its time, or not yet valid. Check the clock of this machine.",
)
OIDC_AUDIENCE = Refusal(
    "AEC-OIDC-AUDIENCE",
    403,
    "the token is meant for another audience. Set APPENGINE_COMPAT_AUDIENCE to the same value "
    "here and where the task is enqueued; behind a proxy see APPENGINE_COMPAT_TRUST_PROXY.",
)
OIDC_EMAIL = Refusal(
    "AEC-OIDC-EMAIL",
    403,
    "the token names no verified e-mail address. Ask for one that does (gcloud auth "
    "print-identity-token --include-email), or enqueue with APPENGINE_COMPAT_SERVICE_ACCOUNT set.",
)
OIDC_ACCOUNT = Refusal(
    "AEC-OIDC-ACCOUNT",
    403,
    "the token's account is not one that this service believes. Enqueue as an account listed in "
    "APPENGINE_COMPAT_SERVICE_ACCOUNT (the enqueuer needs roles/iam.serviceAccountUser on it).",
)

SIGNATURE_MISSING = Refusal(
    "AEC-SIGNATURE-MISSING",
    403,
    "the task is not signed, and APPENGINE_COMPAT_SIGNATURES here requires it. Set "
    "APPENGINE_COMPAT_SIGNING_KEYS where the task is enqueued; while unsigned tasks are in "
    "flight, set APPENGINE_COMPAT_SIGNATURES=accept-unsigned here.",
)
SIGNATURE_NO_KEYS = Refusal(
    "AEC-SIGNATURE-NO-KEYS-SET",
    403,
    "the task is signed, but this service has no key to check it with. Set "
    "APPENGINE_COMPAT_SIGNING_KEYS to the same keys as where the task is enqueued.",
)
SIGNATURE_MALFORMED = Refusal(
    "AEC-SIGNATURE-MALFORMED",
    403,
    "the header X-AEC-Signature is not a signature. Enqueuing makes it, where "
    "APPENGINE_COMPAT_SIGNING_KEYS is set, and a proxy must hand it on unchanged.",
)
SIGNATURE_KEY = Refusal(
    "AEC-SIGNATURE-KEY",
    403,
    "the task is signed with a key that this service does not have. Put it in "
    "APPENGINE_COMPAT_SIGNING_KEYS; keep a key there for as long as tasks signed with it may come.",
)
SIGNATURE_MISMATCH = Refusal(
    "AEC-SIGNATURE-MISMATCH",
    403,
    "the signature was made for another method, path, query, queue or task, or with another "
    "secret. A proxy must hand the path on unchanged, and the secret of this key's id in "
    "APPENGINE_COMPAT_SIGNING_KEYS must be the same here and where the task is enqueued.",
)
SIGNATURE_AGE = Refusal(
    "AEC-SIGNATURE-AGE",
    403,
    "the signature is older than APPENGINE_COMPAT_SIGNATURE_MAX_AGE allows: enqueue the task "
    "again, or raise that to the longest time for which your queues retry.",
)
SIGNATURE_BODY = Refusal(
    "AEC-SIGNATURE-BODY",
    403,
    "the body is not the one that was signed, or not whole. A proxy must hand it on unchanged, and "
    "whoever enqueues must have the keys of APPENGINE_COMPAT_SIGNING_KEYS sign what is sent.",
)

ALL: tuple[Refusal, ...] = (
    NO_CREDENTIALS,
    LOCAL_TOKEN,
    APP_ENGINE_INCOMPLETE,
    APP_ENGINE_ADDRESS,
    APP_ENGINE_SOURCE,
    OIDC_NO_ACCOUNT,
    OIDC_MALFORMED,
    OIDC_ALGORITHM,
    OIDC_KEY,
    OIDC_KEYS_UNREACHABLE,
    OIDC_SIGNATURE,
    OIDC_ISSUER,
    OIDC_EXPIRED,
    OIDC_AUDIENCE,
    OIDC_EMAIL,
    OIDC_ACCOUNT,
    SIGNATURE_MISSING,
    SIGNATURE_NO_KEYS,
    SIGNATURE_MALFORMED,
    SIGNATURE_KEY,
    SIGNATURE_MISMATCH,
    SIGNATURE_AGE,
    SIGNATURE_BODY,
    NOT_A_TASK,
    NOT_FROM_QUEUE,
)

UNSIGNED = "unsigned-accepted"
"""Under which ``counts`` has the tasks that were let in without a signature."""

_LINES_PER_WINDOW = 5
_WINDOW_SECONDS = 60.0

_counts: Counter[str] = Counter()
_windows: dict[str, tuple[float, int]] = {}
_lock = threading.Lock()


def counts() -> dict[str, int]:
    """Return how often each code was used since the process started."""
    with _lock:
        return dict(_counts)


def note(refusal: Refusal, method: str, path: str, address: str, detail: str) -> None:
    """Count a refusal and log it, at most five lines a minute of each code.

    Args:
        refusal: why.
        method: the request's method.
        path: its path.
        address: the address that the connection came from.
        detail: what the caller must not be told; "" when there is nothing more to say.
    """
    lines, total = _counted(refusal.code)
    if lines >= _LINES_PER_WINDOW:
        return
    # Everything that the caller chose goes through repr: no line of the log is theirs to write.
    _log.warning(
        "Not believed to be a task: %.16r %.300r from %.64r (%d %s): %s%s%s",
        method,
        path,
        address,
        refusal.status,
        refusal.code,
        refusal.reason,
        f" ({detail})" if detail else "",
        _last_line(lines, total),
    )


def note_unsigned(method: str, path: str, who: str) -> None:
    """Count a task that was let in without a signature, and log it at the same rate.

    Args:
        method: the request's method.
        path: its path.
        who: by whom it is known to come.
    """
    lines, total = _counted(UNSIGNED)
    if lines < _LINES_PER_WINDOW:
        _log.warning(
            "A task without a signature was let in: %.16r %.300r, known as %s. Once none of these "
            "come, set APPENGINE_COMPAT_SIGNATURES=require.%s",
            method,
            path,
            who,
            _last_line(lines, total),
        )


def _counted(code: str) -> tuple[int, int]:
    """Count a use of a code; return how many lines of it this minute has, and the count."""
    now = time.monotonic()
    with _lock:
        _counts[code] += 1
        since, lines = _windows.get(code, (now, 0))
        if now - since >= _WINDOW_SECONDS:
            since, lines = now, 0
        _windows[code] = (since, lines + 1)
        return lines, _counts[code]


def _last_line(lines: int, total: int) -> str:
    if lines < _LINES_PER_WINDOW - 1:
        return ""
    return f" [{total} so far; the next of this minute are counted, not logged]"
