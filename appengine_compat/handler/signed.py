"""What the door makes of a task's signature.

A signature may be the only thing that shows a request to be a task (Redis and RQ), or come on top
of what the platform shows (``APPENGINE_COMPAT_SIGNATURES``). The body is read only after all else
of the signature was found genuine, and then put back for the app to read.
"""

from __future__ import annotations

import io
import time
from collections.abc import MutableMapping
from typing import Any

from appengine_compat import platform, settings
from appengine_compat.handler import refusals, request_body
from appengine_compat.handler.refusals import Refused
from appengine_compat.payload import signing
from appengine_compat.payload.signing import Fault, SignatureError, Signed

Environ = MutableMapping[str, Any]

KEY = "HTTP_X_AEC_SIGNATURE"

_REFUSALS = {
    Fault.MALFORMED: refusals.SIGNATURE_MALFORMED,
    Fault.KEY: refusals.SIGNATURE_KEY,
    Fault.MISMATCH: refusals.SIGNATURE_MISMATCH,
    Fault.AGE: refusals.SIGNATURE_AGE,
}


def suffices() -> bool:
    """Tell whether a signature alone shows a request to be a task.

    It does where nothing else can: with the backend rq, and off App Engine where no account is
    believed. Elsewhere whoever has seen a signed request could send it again without the
    platform's token, which is good for an hour only.

    Raises:
        ConfigError: a setting's value is not allowed.
    """
    if signing.mode() == signing.OFF:
        return False
    if settings.BACKEND.get() == "rq":
        return True
    on_app_engine = platform.detect() is platform.Platform.APP_ENGINE
    return not on_app_engine and not settings.SERVICE_ACCOUNT.get()


def check_beside(environ: Environ, who: str) -> None:
    """Check the signature of a request that is known to be a task by something else.

    Args:
        environ: the request's WSGI environ.
        who: by whom it is known to come, for the log.

    Raises:
        Refused: the signature is wrong, or missing where one is required.
        ConfigError: a setting's value is not allowed.
    """
    mode = signing.mode()
    if mode == signing.OFF:
        return
    if KEY in environ:
        check(environ)
    elif mode == signing.REQUIRE:
        raise Refused(refusals.SIGNATURE_MISSING, f"else it is known as {who}")
    else:
        refusals.note_unsigned(environ.get("REQUEST_METHOD", ""), _path(environ), who)


def check(environ: Environ) -> str:
    """Return the id of the key that signed a request, body included.

    Args:
        environ: the request's WSGI environ; its body is read, and can be read again.

    Raises:
        Refused: with the check that failed.
        ConfigError: a setting's value is not allowed.
    """
    policy = signing.policy()
    if not policy.keys:
        raise Refused(refusals.SIGNATURE_NO_KEYS)
    try:
        signed = signing.verify(
            environ[KEY],
            policy.keys,
            method=environ.get("REQUEST_METHOD", ""),
            path=_path(environ).encode("latin-1", "replace"),
            query=environ.get("QUERY_STRING", ""),
            queue=_task_header(environ, "QUEUENAME"),
            task_name=_task_header(environ, "TASKNAME"),
            max_age_seconds=policy.max_age_seconds,
            now=time.time(),
        )
    except SignatureError as error:
        raise Refused(_REFUSALS[error.fault], error.detail) from None
    _check_body(environ, signed)
    return signed.key_id


def _check_body(environ: Environ, signed: Signed) -> None:
    said = environ.get("CONTENT_LENGTH") or ""
    # A length that was not signed is not read: a seen signature must not fill the memory.
    if said and said != str(signed.length):
        raise Refused(refusals.SIGNATURE_BODY, f"Content-Length is {said!r:.20}")
    if not said and signed.length == 0:
        body = b""
    else:
        try:
            body = request_body.read_at_most(environ, signed.length)
        except request_body.BodyError as error:
            raise Refused(refusals.SIGNATURE_BODY, str(error)) from None
    if not signed.fits(body):
        raise Refused(refusals.SIGNATURE_BODY)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))


def _path(environ: Environ) -> str:
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path


def _task_header(environ: Environ, name: str) -> str:
    value: str = environ.get("HTTP_X_CLOUDTASKS_" + name) or environ.get(
        "HTTP_X_APPENGINE_" + name, ""
    )
    return value
