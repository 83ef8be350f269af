"""Checking Google's OIDC tokens: whose they are, for whom, and until when.

Cloud Tasks signs each HTTP task with a token for the service account that the task names. The
token is believed when Google's key signed it (RS256, no other algorithm), Google issued it, it
is within its time, it is meant for this service, and its verified account is on the list.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from appengine_compat import platform, settings
from appengine_compat.handler import oidc_keys, refusals
from appengine_compat.handler.refusals import Refused

_log = logging.getLogger("appengine_compat.handler")

GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")

_LONGEST_TOKEN = 16 * 1024
_SKEW_SECONDS = 30.0

# What stands unescaped in a path by RFC 3986; Cloud Tasks keeps a url as the task has it.
_PATH_SAFE = "/:@!$&'()*+,;=~-._"


def verified_account(token: str, environ: Any) -> str:
    """Return the e-mail address of the account that a token speaks for.

    Args:
        token: the text after ``Bearer``.
        environ: the request's WSGI environ; says for whom a token must be meant where no
            audience is set.

    Raises:
        Refused: with the check that failed.
        ConfigError: a setting's value is not allowed.
    """
    accounts = settings.SERVICE_ACCOUNT.get()
    if not accounts:
        raise Refused(refusals.OIDC_NO_ACCOUNT)
    issuer = settings.OIDC_ISSUER.get()
    claims = _verified_claims(token, issuer)
    _check_issuer(claims, issuer)
    _check_times(claims, time.time())
    _check_audience(claims, environ)
    return _checked_account(claims, accounts)


def _verified_claims(token: str, issuer: str | None) -> dict[str, Any]:
    if len(token) > _LONGEST_TOKEN or token.count(".") != 2 or not token.isascii():
        raise Refused(refusals.OIDC_MALFORMED)
    signed, _, signature_part = token.rpartition(".")
    header_part, _, claims_part = signed.partition(".")
    header = _json_object(header_part)
    # The algorithm is ours to choose, not the token's: "none" needs no key, and HS256 would take
    # the public key for a shared secret. Extensions that must be understood are none of Google's.
    if header.get("alg") != "RS256" or "crit" in header:
        raise Refused(refusals.OIDC_ALGORITHM, f"alg is {header.get('alg')!r:.40}")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise Refused(refusals.OIDC_KEY, "no kid")
    key = oidc_keys.find(key_id, issuer)
    if not oidc_keys.is_signed(key, _base64url(signature_part), signed.encode("ascii")):
        raise Refused(refusals.OIDC_SIGNATURE)
    return _json_object(claims_part)


def _base64url(text: str) -> bytes:
    try:
        # A stricter decoder than base64.urlsafe_b64decode, which skips characters it dislikes.
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise Refused(refusals.OIDC_MALFORMED) from None


def _json_object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_base64url(part))
    except (ValueError, RecursionError):
        raise Refused(refusals.OIDC_MALFORMED) from None
    if not isinstance(value, dict):
        raise Refused(refusals.OIDC_MALFORMED)
    return value


def _check_issuer(claims: dict[str, Any], issuer: str | None) -> None:
    allowed = GOOGLE_ISSUERS if issuer is None else (issuer,)
    if claims.get("iss") not in allowed:
        raise Refused(refusals.OIDC_ISSUER, f"iss is {claims.get('iss')!r:.100}")


def _check_times(claims: dict[str, Any], now: float) -> None:
    expires = _moment(claims, "exp")
    if expires is None or now > expires + _SKEW_SECONDS:
        raise Refused(refusals.OIDC_EXPIRED, f"exp is {claims.get('exp')!r:.40}, now {now:.0f}")
    for name in ("iat", "nbf"):
        begins = _moment(claims, name)
        if name in claims and (begins is None or now < begins - _SKEW_SECONDS):
            raise Refused(refusals.OIDC_EXPIRED, f"{name} is {claims[name]!r:.40}, now {now:.0f}")


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    # bool is an int to Python, and JSON's NaN compares as no number does.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e12 else None


def _check_audience(claims: dict[str, Any], environ: Any) -> None:
    allowed = _allowed_audiences(environ)
    if claims.get("aud") not in allowed:
        raise Refused(
            refusals.OIDC_AUDIENCE,
            f"aud is {claims.get('aud')!r:.300}, allowed {' or '.join(allowed)}",
        )


def _allowed_audiences(environ: Any) -> tuple[str, ...]:
    audience = settings.AUDIENCE.get()
    if audience:
        return (audience,)
    # Clients choose the Host header. Where our own addresses are known, a token that the same
    # account sent elsewhere must not be let in by naming that other address as the host.
    bases = tuple(_addresses(settings.TARGETS.get().values()))
    own = platform.own_url() if bases else ""
    origins = (*bases, own) if own else bases or (_origin(environ),)
    return origins + tuple(origin + path for origin in origins for path in _own_paths(environ))


def _addresses(targets: Iterable[str]) -> Iterator[str]:
    for target in targets:
        if target.startswith(("http://", "https://")):
            yield target
        elif target == "ngrok":
            from appengine_compat.local import ngrok

            try:
                yield ngrok.public_address()
            except ngrok.TunnelError as error:
                _log.warning(
                    "The tunnel's address, for which tasks are meant, is unknown: %s", error
                )


def _own_paths(environ: Any) -> list[str]:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    quoted = quote(path.encode("latin-1", "replace"), safe=_PATH_SAFE)
    paths = [f"{quoted}?{query}" if query else quoted]
    # A url may be quoted in more ways than one; servers that keep it as it came say it here.
    as_it_came = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    if as_it_came.startswith("/"):
        paths.append(as_it_came)
    return paths


def _origin(environ: Any) -> str:
    scheme, host = environ.get("wsgi.url_scheme", "http"), environ.get("HTTP_HOST", "")
    trusts_proxy = settings.TRUST_PROXY.get()
    if trusts_proxy or platform.detect() in platform.ENDS_TLS:
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", scheme)
    if trusts_proxy:
        host = environ.get("HTTP_X_FORWARDED_HOST", host)
    return f"{scheme}://{host}"


def _checked_account(claims: dict[str, Any], accounts: tuple[str, ...]) -> str:
    email = claims.get("email")
    if not isinstance(email, str) or claims.get("email_verified") is not True:
        raise Refused(refusals.OIDC_EMAIL, f"email is {email!r:.100}")
    if email not in accounts:
        raise Refused(refusals.OIDC_ACCOUNT, f"email is {email!r:.100}")
    return email
