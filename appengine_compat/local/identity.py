"""Who the local service speaks for: identity tokens signed with a key of its own.

A token is made like Google's (RS256, an hour, the same claims), and says that this service issued
it. Whoever is told to believe this issuer finds the public key below its address and checks the
token as it would check Google's; nobody else believes it, whatever account it names. The key is
made when first needed, and stays with the database.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from appengine_compat.local import documents, http_messages
from appengine_compat.local.store_snapshot import KEY_PREFIX

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from appengine_compat.local.http_messages import Request, Response
    from appengine_compat.local.store import Connection, Store

LIFETIME_SECONDS = 3600
DISCOVERY_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/oauth2/v3/certs"
MOUNTS = (DISCOVERY_PATH, KEYS_PATH)
"""Where the issuer's address serves ``Identity.documents``."""

_KEY = f"{KEY_PREFIX}oidc"
_KEY_BITS = 2048
_KEPT_SECONDS = 300
"""So long a token is given out again: signing one takes as long as delivering several tasks."""
_MOST_KEPT = 1024
_KEYS_MAX_AGE_SECONDS = 3600


class Identity:
    """Makes and vouches for the identity tokens of one database's service. Thread-safe.

    Attributes:
        issuer: who the tokens say has issued them, without a slash at the end; "" until the
            address is known below which ``documents`` is served.
    """

    def __init__(self, store: Store, issuer: str | None = None) -> None:
        """Speak for a service.

        Args:
            store: keeps the key.
            issuer: the address below which handlers reach ``MOUNTS``, such as
                ``http://tasks:8124``, or a name that they insist on, such as Google's; None for
                the address that ``open_doors`` serves them at.
        """
        self.issuer = (issuer or "").rstrip("/")
        self._store = store
        self._lock = threading.Lock()
        self._key: RSAPrivateKey | None = None
        self._key_id = ""
        self._kept: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()

    def token(self, account: str, audience: str) -> str:
        """Return an identity token.

        It goes by the machine's time even where the service's clock is stepped: those who check
        it live in that time.

        Args:
            account: the e-mail address that it names.
            audience: for whom it is.

        Raises:
            StoreError: the key cannot be read, or kept.
        """
        now = int(time.time())
        with self._lock:
            token, made_at = self._kept.get((account, audience), ("", 0))
            if token and 0 <= now - made_at < _KEPT_SECONDS:
                return token
        token = self._signed(_claims(self.issuer, account, audience, now))
        with self._lock:
            self._kept[account, audience] = (token, now)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return token

    def documents(self) -> WSGIApplication:
        """Return what answers at ``MOUNTS``: the discovery document, and the public key."""
        return http_messages.application(self._answer)

    def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return http_messages.error(405, "METHOD_NOT_ALLOWED", "Only GET is answered here.")
        if request.path == DISCOVERY_PATH:
            value = self._discovery(request.origin or self.issuer)
        elif request.path == KEYS_PATH:
            value = {"keys": [self._public_key()]}
        else:
            return http_messages.error(404, "NOT_FOUND", "There is no such document.")
        response = http_messages.as_json(value)
        response.headers["Cache-Control"] = f"public, max-age={_KEYS_MAX_AGE_SECONDS}"
        return response

    def _discovery(self, origin: str) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            # Where the asker came to, which the issuer's own address need not be.
            "jwks_uri": origin + KEYS_PATH,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": [
                "aud",
                "azp",
                "email",
                "email_verified",
                "exp",
                "iat",
                "iss",
                "sub",
            ],
        }

    def _public_key(self) -> dict[str, str]:
        numbers = self._loaded().public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self._key_id,
            "n": _base64url(_big_endian(numbers.n)),
            "e": _base64url(_big_endian(numbers.e)),
        }

    def _signed(self, claims: dict[str, Any]) -> str:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        key = self._loaded()
        header = {"alg": "RS256", "kid": self._key_id, "typ": "JWT"}
        message = f"{_json(header)}.{_json(claims)}"
        signature = key.sign(message.encode("ascii"), PKCS1v15(), SHA256())
        return f"{message}.{_base64url(signature)}"

    def _loaded(self) -> RSAPrivateKey:
        with self._lock:
            if self._key is None:
                self._key = _key_of(self._store)
                numbers = self._key.public_key().public_numbers()
                self._key_id = hashlib.sha256(_big_endian(numbers.n)).hexdigest()[:40]
            return self._key


def _claims(issuer: str, account: str, audience: str, now: int) -> dict[str, Any]:
    # Google's subjects are 21 digits that stay an account's own.
    number = int.from_bytes(hashlib.sha256(account.encode()).digest()[:8], "big")
    subject = f"1{number % 10**20:020d}"
    return {
        "aud": audience,
        "azp": subject,
        "email": account,
        "email_verified": True,
        "exp": now + LIFETIME_SECONDS,
        "iat": now,
        "iss": issuer,
        "sub": subject,
    }


def _key_of(store: Store) -> RSAPrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    text = store.read(lambda connection: documents.load(connection, _KEY, 0))
    if text is None:
        made = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        text = store.write(lambda connection: _kept_key(connection, made))
    key = serialization.load_pem_private_key(text, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _kept_key(connection: Connection, made: bytes) -> bytes:
    # Another process on the same file may have been faster: there is one key.
    found = documents.load(connection, _KEY, 0)
    if found is None:
        documents.save(connection, _KEY, made)
        return made
    return found


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _json(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())
