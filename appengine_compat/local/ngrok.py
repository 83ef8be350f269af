"""The public address of a tunnel that runs on this machine, asked of ngrok's agent."""

from __future__ import annotations

import http.client
import json
import time

from appengine_compat.errors import CompatError

AGENT = "127.0.0.1:4040"
TIMEOUT_SECONDS = 2.0
KEPT_SECONDS = 10.0
"""How long an answer is kept: a tunnel that is started anew has another address."""


class TunnelError(CompatError):
    """No tunnel's address is known; says why, and what to do."""


_kept: tuple[str, float, str] | None = None


def public_address() -> str:
    """Return the https address of the tunnel that is open.

    Raises:
        TunnelError: no agent answers, or it has no tunnel, or several.
    """
    global _kept
    now = time.monotonic()
    if _kept is None or _kept[0] != AGENT or now > _kept[1]:
        _kept = (AGENT, now + KEPT_SECONDS, _only_address(_tunnels()))
    return _kept[2]


def _tunnels() -> object:
    connection = http.client.HTTPConnection(AGENT, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/api/tunnels", headers={"Accept": "application/json"})
        return json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TunnelError(
            f"no ngrok agent answers at {AGENT} ({error}): start one (ngrok http 8080)"
        ) from error
    finally:
        connection.close()


def _only_address(answer: object) -> str:
    tunnels = answer.get("tunnels") if isinstance(answer, dict) else None
    addresses = sorted(
        {
            tunnel["public_url"]
            for tunnel in (tunnels if isinstance(tunnels, list) else [])
            if isinstance(tunnel, dict) and str(tunnel.get("public_url", "")).startswith("https://")
        }
    )
    if len(addresses) == 1:
        return str(addresses[0])
    if not addresses:
        raise TunnelError(
            f"the ngrok agent at {AGENT} has no https tunnel open: open one (ngrok http 8080)"
        )
    raise TunnelError(
        f"the ngrok agent at {AGENT} has several tunnels open ({', '.join(addresses)}): leave one"
    )
