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
    from google.auth.crypt import RSAVerifier

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
    keys: dict[str, RSAVerifier]
    expires_at: float


_lock = threading.Lock()
_key_sets: dict[str, _KeySet] = {}
_last_fetch: dict[str, float] = {}


def find(key_id: str, issuer: str | None) -> RSAVerifier:
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


def count(issuer: str | None) -> int:
    """Fetch an issuer's keys, and return how many there are; for whoever looks at the set-up.

    Args:
        issuer: the issuer's address; None for Google.

    Raises:
        Exception: whatever is in the way.
    """
    return len(_fetched(issuer).keys)


def is_signed(key: RSAVerifier, signature: bytes, message: bytes) -> bool:
    """Tell whether the key's owner signed the message, by RSASSA-PKCS1-v1_5 with SHA-256."""
    # On the library rsa, which older google-auth has, the answer is the hash that was used, and
    # other hashes pass.
    return key.verify(message, signature) in (True, "SHA-256")


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


def _public_key(entry: dict[str, Any]) -> RSAVerifier | None:
    from google.auth.crypt import RSAVerifier

    verifier: Any = RSAVerifier  # it has no types
    if entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig" or "kid" not in entry:
        return None
    try:
        modulus, exponent = _number(entry["n"]), _number(entry["e"])
        if modulus.bit_length() < _LEAST_KEY_BITS:
            return None
        made: RSAVerifier = verifier.from_string(_pem(modulus, exponent))
        return made
    except (KeyError, TypeError, ValueError):
        return None  # one key that cannot be read must not take the others with it


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


def _pem(modulus: int, exponent: int) -> str:
    """Return a public key as PKCS#1 writes it: what google-auth reads, whichever library it has."""
    numbers = b"".join(
        # One bit more than the number has: DER's numbers have a sign.
        _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
        for number in (modulus, exponent)
    )
    text = base64.encodebytes(_der(0x30, numbers)).decode("ascii")
    return f"-----BEGIN RSA PUBLIC KEY-----\n{text}-----END RSA PUBLIC KEY-----\n"


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content
