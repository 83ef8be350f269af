"""What it costs to know that a request is a task: each way in, beside the handler without a door.

The key of the token is in the cache, as it is for all tasks but the first of an hour. Processor
time of ``application.post(environ)`` with a small payload; rounds take turns.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from google.appengine.ext import deferred

from appengine_compat.handler import door, oidc_keys
from appengine_compat.local import tokens
from appengine_compat.payload import signing

ROUNDS = 9
TASKS = 1000
PATH = "/_ah/queue/deferred"
KEYS = (("k", "0123456789abcdef"),)
SECRET = b"the secret of this benchmark"
AUDIENCE = "https://app.example.com"
ACCOUNT = "tasks@project.iam.gserviceaccount.com"

Settings = dict[str, str]


def request() -> dict[str, Any]:
    body = deferred.serialize(print, end="")
    return {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": PATH, "QUERY_STRING": "",
        "REMOTE_ADDR": "203.0.113.9", "CONTENT_LENGTH": str(len(body)), "body": body,
        "HTTP_HOST": "app.example.com", "HTTP_X_CLOUDTASKS_TASKNAME": "task1",
        "HTTP_X_CLOUDTASKS_QUEUENAME": "default", "wsgi.url_scheme": "https",
    }  # fmt: skip


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def token() -> str:
    """Return a true token, whose key is put where fetched ones are."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    n, e = (
        part(number.to_bytes((number.bit_length() + 7) // 8, "big"))
        for number in (numbers.n, numbers.e)
    )
    verifier = oidc_keys._public_key({"kid": "a", "kty": "RSA", "n": n, "e": e})
    assert verifier is not None
    oidc_keys._key_sets[""] = oidc_keys._KeySet({"a": verifier}, time.monotonic() + 3600)
    now = int(time.time())
    claims = {
        "iss": "https://accounts.google.com", "aud": AUDIENCE, "email": ACCOUNT,
        "email_verified": True, "sub": "1", "azp": "1", "iat": now, "exp": now + 3600,
    }  # fmt: skip
    text = f"{part({'alg': 'RS256', 'kid': 'a', 'typ': 'JWT'})}.{part(claims)}"
    return f"{text}.{part(key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


def contenders() -> dict[str, tuple[Settings, dict[str, Any]]]:
    body = request()["body"]
    signature = signing.sign(
        KEYS, method="POST", url=PATH, queue="default", task_name="task1", body=body, at=time.time()
    )
    local = tokens.make(SECRET, queue_id="default", task_id="task1", path=PATH)
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {token()}"}
    oidc = {
        "APPENGINE_COMPAT_SERVICE_ACCOUNT": ACCOUNT,
        "APPENGINE_COMPAT_AUDIENCE": AUDIENCE,
    }
    keys = {"APPENGINE_COMPAT_SIGNING_KEYS": ":".join(KEYS[0])}
    known = {door.VERDICT_KEY: door.Verdict(True, door.Trust.LOCAL)}
    tokens.register_secret(SECRET)
    return {
        "no door at all": ({}, known),
        "local token": ({}, {"HTTP_X_AEC_LOCAL_TOKEN": local}),
        "signature": (keys, {"HTTP_X_AEC_SIGNATURE": signature}),
        "Google's token": (oidc, bearer),
        "Google's token and signature": (
            oidc | keys,
            bearer | {"HTTP_X_AEC_SIGNATURE": signature},
        ),
        "no door, bounded payload": ({"APPENGINE_COMPAT_ALLOWED_CALLABLES": "builtins"}, known),
        "refused": (oidc, {}),
    }


def measure(values: dict[str, Any], post: Callable[[dict[str, Any]], Any]) -> float:
    """Return the processor's microseconds for one task."""
    plain = request() | values
    body = plain.pop("body")
    requests = [{**plain, "wsgi.input": io.BytesIO(body)} for _ in range(TASKS)]
    started = time.process_time()
    for environ in requests:
        post(environ)
    return (time.process_time() - started) / TASKS * 1e6


def main() -> None:
    logging.disable(logging.CRITICAL)
    figures: dict[str, list[float]] = {}
    known = contenders()
    for name in list(os.environ):
        if name.startswith(("APPENGINE_COMPAT_", "GAE_")):
            del os.environ[name]
    for _ in range(ROUNDS):
        for name, (settings, values) in known.items():
            os.environ.update(settings)
            figures.setdefault(name, []).append(measure(values, deferred.application.post))
            for variable in settings:
                del os.environ[variable]
    middle = {name: statistics.median(each) for name, each in figures.items()}
    bare = middle["no door at all"]
    for name, each in figures.items():
        beside = "" if name == "no door at all" else f"{middle[name] - bare:+.1f} us"
        spread = f"({min(each):.1f}..{max(each):.1f})"
        print(f"post, known by: {name}\t{middle[name]:.1f} us cpu {spread}\t{beside}")


if __name__ == "__main__":
    main()
