"""Real servers for the tests of the door: an app over HTTP, and an issuer of tokens."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from appengine_compat.handler import oidc_keys
from tests import wsgi_server

AUDIENCE = "https://app.example.com"
ACCOUNT = "tasks@project.iam.gserviceaccount.com"

# Making keys takes long, so they are made once.
KEYS = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in "ab"}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: object) -> str:
    return base64url(json.dumps(value).encode())


class Issuer:
    """Issues RS256 tokens and publishes its keys, as Google does."""

    def __init__(self) -> None:
        self.published = {"a": KEYS["a"]}
        self.cache_control = "public, max-age=3600"
        self.is_broken = False
        self.fetches = 0
        issuer = self

        class Pages(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if issuer.is_broken:
                    self.send_error(500)
                    return
                if self.path == "/.well-known/openid-configuration":
                    page: Any = {"issuer": issuer.url, "jwks_uri": issuer.url + "/jwks"}
                else:
                    issuer.fetches += 1
                    page = {"keys": [jwk(name, key) for name, key in issuer.published.items()]}
                content = json.dumps(page).encode()
                self.send_response(200)
                self.send_header("Cache-Control", issuer.cache_control)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "email": ACCOUNT, "email_verified": True,
            "sub": "123", "azp": "123", "iat": now, "exp": now + 3600, **changes,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: str = "a", header: dict[str, Any] | None = None, **changes: Any) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": key, **(header or {})}
        signed = f"{part(head)}.{part(self.claims(**changes))}"
        signature = KEYS[key].sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{base64url(signature)}"


def jwk(name: str, key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    n, e = (
        base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
        for number in (numbers.n, numbers.e)
    )
    return {"kid": name, "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e}


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """An issuer that this process believes, with an account and an audience set."""
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("APPENGINE_COMPAT_OIDC_ISSUER", issuer.url)
    monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", f"other@example.com, {ACCOUNT}")
    monkeypatch.setenv("APPENGINE_COMPAT_AUDIENCE", AUDIENCE)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    oidc_keys.forget()
    yield issuer
    issuer.server.shutdown()
    thread.join()
    issuer.server.server_close()
    oidc_keys.forget()


Send = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Any], Send]]:
    """Serve a WSGI app by waitress; gives what sends raw bytes and returns the raw answer."""
    with contextlib.ExitStack() as ends:

        def start(app: Any) -> Send:
            port = ends.enter_context(
                wsgi_server.serving(app, threads=2, clear_untrusted_proxy_headers=False)
            )

            return functools.partial(wsgi_server.exchange, port)

        yield start
