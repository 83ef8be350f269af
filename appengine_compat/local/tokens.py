"""How a task proves that it came from the local service: a keyed digest of what it is.

The key is a random secret that each database keeps (``local.store``). A process believes the
secrets it has registered, so a token made by another program's database proves nothing here.
"""

from __future__ import annotations

import hmac
import threading

from appengine_compat.local import forks

_PURPOSE = b"appengine-compat local task 1"

_lock = threading.Lock()
_digesting = forks.Work()
"""OpenSSL has locks of its own, which a child would inherit."""
_secrets: tuple[bytes, ...] = ()


def register_secret(secret: bytes) -> None:
    """Believe, from now on, tokens made with this secret in this process.

    Raises:
        ValueError: the secret is shorter than 16 bytes, so that it might be guessed.
    """
    global _secrets
    if len(secret) < 16:
        raise ValueError(f"a secret of {len(secret)} bytes can be guessed; 16 is the least")
    with _lock:
        if secret not in _secrets:
            _secrets = (*_secrets, secret)


def make(secret: bytes, *, queue_id: str, task_id: str, path: str) -> str:
    """Return the token of one task: hexadecimal HMAC-SHA256 of what it is and where it goes.

    Args:
        secret: the database's secret.
        queue_id: the last part of the queue's name.
        task_id: the last part of the task's name.
        path: the decoded path as WSGI has it, ``SCRIPT_NAME + PATH_INFO``, without the query.
    """
    message = bytearray(_PURPOSE)
    for part in (queue_id, task_id, path):
        encoded = part.encode("utf-8", "surrogatepass")
        # Each part is preceded by its length: no two triples share an encoding.
        message += len(encoded).to_bytes(4, "big") + encoded
    with _digesting:
        return hmac.digest(secret, message, "sha256").hex()


def is_genuine(token: str, *, queue_id: str, task_id: str, path: str) -> bool:
    """Tell whether a registered secret made this token for this task.

    Every registered secret is tried, and each comparison takes the same time whatever the token,
    so that the answer's delay tells nothing.
    """
    given = token.encode("utf-8", "surrogatepass")
    found = False
    for secret in _secrets:
        expected = make(secret, queue_id=queue_id, task_id=task_id, path=path).encode("ascii")
        found |= hmac.compare_digest(expected, given)
    return found
