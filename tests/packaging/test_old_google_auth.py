"""Tokens are checked on an older google-auth too, which has the library rsa, not cryptography."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from tests.handler.conftest import jwk
from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

PROGRAM = """
import json, sys
from appengine_compat.handler import oidc_keys
said = json.loads({said!r})
key = oidc_keys._public_key(said["key"])
print([oidc_keys.is_signed(key, bytes.fromhex(s), b"message") for s in said["signatures"]])
print("cryptography" in sys.modules)
"""


def test_without_cryptography(wheel: Path, environments: Callable[..., Environment]) -> None:
    environment = environments("old")
    environment.install("google-auth==2.17.3")
    environment.install("--no-deps", str(wheel))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signatures = [
        key.sign(b"message", padding.PKCS1v15(), SHA256()),
        key.sign(b"another", padding.PKCS1v15(), SHA256()),
        # The library rsa would take any hash that it knows.
        key.sign(b"message", padding.PKCS1v15(), SHA1()),
        b"",
    ]
    said = json.dumps({"key": jwk("a", key), "signatures": [each.hex() for each in signatures]})
    printed = environment.run(PROGRAM.format(said=said)).split("\n")
    assert printed[:2] == ["[True, False, False, False]", "False"]
