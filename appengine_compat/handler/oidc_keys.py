"""The keys that OIDC tokens are signed with: fetched from their issuer, kept for their lifetime.

A known key costs no request. A key that is not known makes one new request, for issuers change
keys; but no more than one in a while, for anyone can name a key that does not exist.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appengine_compat.handler import refusals
from appengine_compat.handler.refusals import Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

GOOGLE_KEYS_URL = "https://www.googleapis.com/oauth2/v3/certs"

_FETCH_TIMEOUT_SECONDS = 5.0
_LONGEST_ANSWER = 256 * 1024
_SECONDS_BETWEEN_FETCHES = 10.0
_SHORTEST_LIFETIME = 60.0
_LONGEST_LIFETIME = 24 * 3600.0
_LIFETIME_UNSAID = 3600.0
_LEAST_KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class _KeySet:
    keys: dict[str, RSAPublicKey]
    expires_at: float


_lock = threading.Lock()
_key_sets: dict[str, _KeySet] = {}
_last_fetch: dict[str, float] = {}


def find(key_id: str, issuer: str | None) -> RSAPublicKey:
    """Return an issuer's public key.

    Args:
        key_id: the ``kid`` that a token names.
        issuer: the issuer's address; None for Google.

    Raises:
        Refused: the issuer has no such key, or its keys cannot be had.
    """
    at = issuer or ""
    known = _key_sets.get(at)
    if known is not None and time.monotonic() < known.expires_at and key_id in known.keys:
        return known.keys[key_id]
    with _lock:
        known = _key_sets.get(at)
        now = time.monotonic()
        fresh = known is not None and now < known.expires_at
        may_fetch = now - _last_fetch.get(at, -_SECONDS_BETWEEN_FETCHES) >= _SECONDS_BETWEEN_FETCHES
        if may_fetch and not (fresh and known is not None and key_id in known.keys):
            _last_fetch[at] = now
            try:
                known = _key_sets[at] = _fetched(issuer)
                fresh = True
            except Exception as error:
                # Whatever went wrong on the way to the issuer, the token stays unchecked.
                if not fresh:
                    raise Refused(refusals.OIDC_KEYS_UNREACHABLE, repr(error)) from error
    if known is None or not fresh:
        raise Refused(refusals.OIDC_KEYS_UNREACHABLE, "the last try was a moment ago")
    if key_id not in known.keys:
        raise Refused(refusals.OIDC_KEY, f"kid is {key_id!r:.100}")
    return known.keys[key_id]


def is_signed(key: RSAPublicKey, signature: bytes, message: bytes) -> bool:
    """Tell whether the key's owner signed the message, by RSASSA-PKCS1-v1_5 with SHA-256."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def forget() -> None:
    """Drop every key that was fetched, so that the next token fetches anew."""
    global _lock
    # A fork may have copied the lock while another thread held it.
    _lock = threading.Lock()
    _key_sets.clear()
    _last_fetch.clear()


os.register_at_fork(after_in_child=forget)


def _fetched(issuer: str | None) -> _KeySet:
    url = GOOGLE_KEYS_URL
    if issuer is not None:
        configuration, _ = _document(issuer.rstrip("/") + "/.well-known/openid-configuration")
        url = str(configuration["jwks_uri"])
    document, lifetime = _document(url)
    keys = {}
    for entry in document["keys"]:
        key = _public_key(entry)
        if key is not None:
            keys[str(entry["kid"])] = key
    return _KeySet(keys, time.monotonic() + lifetime)


def _document(url: str) -> tuple[dict[str, Any], float]:
    import urllib.request

    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url!r} is no http address")
    with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_SECONDS) as answer:
        body = answer.read(_LONGEST_ANSWER + 1)
        cache_control = answer.headers.get("Cache-Control") or ""
        age = answer.headers.get("Age") or "0"
    if len(body) > _LONGEST_ANSWER:
        raise ValueError(f"{url} answers more than {_LONGEST_ANSWER} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answers no JSON object")
    return document, _lifetime_seconds(cache_control, age)


def _lifetime_seconds(cache_control: str, age: str) -> float:
    match = re.search(r"\bmax-age=(\d{1,9})\b", cache_control)
    if match is None:
        return _LIFETIME_UNSAID
    left = float(match[1]) - (float(age) if age.isascii() and age.isdigit() else 0.0)
    return min(max(left, _SHORTEST_LIFETIME), _LONGEST_LIFETIME)


def _public_key(entry: dict[str, Any]) -> RSAPublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    if entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig" or "kid" not in entry:
        return None
    try:
        key = RSAPublicNumbers(e=_number(entry["e"]), n=_number(entry["n"])).public_key()
    except (KeyError, TypeError, ValueError):
        return None  # one key that cannot be read must not take the others with it
    return key if key.key_size >= _LEAST_KEY_BITS else None


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")
