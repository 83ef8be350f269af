"""Delivers tasks over HTTP: to the address that a task has, or to its service's."""

from __future__ import annotations

import email.utils
import logging
import re
import socket
import ssl
import time
from dataclasses import replace
from datetime import timezone
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from appengine_compat.core import outcome
from appengine_compat.core.model import OidcToken
from appengine_compat.local import records
from appengine_compat.local.delivery import Delivery, Reply
from appengine_compat.local.http_connections import PORTS, Connections, Origin
from appengine_compat.local.http_exchange import (
    BrokenReplyError,
    MalformedRequestError,
    NoBytesError,
    Received,
    exchange,
    request_bytes,
)
from appengine_compat.local.service_addresses import ServiceAddresses

if TYPE_CHECKING:
    from appengine_compat.local.identity import Identity

MOST_REDIRECTS = 10
NO_ACCESS_TOKEN = "local-service-has-no-access-token"
"""What is sent for an OAuth token: real ones are Google's alone to give."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})
# They speak of one connection, or of how a body is framed: both are this side's business.
_OF_THE_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_OF_THE_BODY = frozenset({"content-type", "content-encoding", "content-language"})
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_SAFE = "/%:@!$&'()*+,;=~-._?"

_EARLIER_SECONDS = 0.1

_logger = logging.getLogger(__name__)


class HttpTransport:
    """Delivers to addresses, and to the services whose address it knows. Thread-safe."""

    def __init__(
        self, addresses: ServiceAddresses | None = None, identity: Identity | None = None
    ) -> None:
        """Make a transport.

        Args:
            addresses: where the services are; without it App Engine tasks wait.
            identity: makes the identity tokens that tasks ask for; without it they are sent
                without, which is logged.
        """
        self._addresses = addresses or ServiceAddresses()
        self._identity = identity
        self._connections = Connections()
        self._is_warned = False

    def services(self) -> frozenset[str] | None:
        """Return the services that have an address, and "" for tasks with one of their own."""
        named = self._addresses.services()
        return None if named is None else named | {records.HTTP_SERVICE}

    def send(self, delivery: Delivery) -> Reply:
        """Send the request; for HTTP targets follow redirects, within the one deadline."""
        seconds = delivery.deadline_seconds
        # Before whoever gives up threads that hang looks at this one, which does not.
        ends_at = time.monotonic() + seconds - min(_EARLIER_SECONDS, seconds / 10)
        url = "the target"
        try:
            url = self._url(delivery)
            return _reply(self._follow(delivery, url, ends_at))
        except MalformedRequestError as error:
            return Reply(outcome.NO_REPLY, error=f"the request cannot be sent: {error}")
        except BrokenReplyError as error:
            return Reply(outcome.NO_REPLY, error=f"{_shown(url)} gave no whole reply: {error}")
        except OSError as error:
            # A connection that the system gives up raises the same error as our deadline.
            if isinstance(error, TimeoutError) and time.monotonic() >= ends_at - 0.01:
                words = f"no reply within the deadline of {delivery.deadline_seconds:g} seconds"
                return Reply(outcome.TIMED_OUT, error=words)
            return Reply(outcome.NO_REPLY, error=_words(url, error))

    def close(self) -> None:
        """Close the connections that are kept for later; it can still be used."""
        self._connections.close()

    # --- what is sent ----------------------------------------------------------------------------

    def _url(self, delivery: Delivery) -> str:
        claim = delivery.claim
        if not claim.service:
            return claim.url
        routing = records.routing_of(claim.extra)
        address = self._addresses.find(claim.service, routing.version, routing.instance)
        if address is None:
            raise MalformedRequestError(f"the service {claim.service!r} has no address here")
        return address + claim.url

    def _headers(self, delivery: Delivery, url: str) -> list[tuple[str, str]]:
        sent = [each for each in delivery.headers if each[0].lower() not in _OF_THE_CONNECTION]
        claim = delivery.claim
        token = records.token_of(claim.extra) if claim.extra and not claim.service else None
        if token is None:
            return sent
        sent = [each for each in sent if each[0].lower() != "authorization"]
        if not isinstance(token, OidcToken):
            return [*sent, ("Authorization", f"Bearer {NO_ACCESS_TOKEN}")]
        if self._identity is None:
            self._warn(delivery)
            return sent
        made = self._identity.token(token.service_account_email, token.audience or url)
        return [*sent, ("Authorization", f"Bearer {made}")]

    def _warn(self, delivery: Delivery) -> None:
        if not self._is_warned:
            self._is_warned = True
            _logger.warning(
                "Task %s of queue %s asks for an identity token, and none is made here: it is "
                "sent without. Give HttpTransport an Identity.",
                delivery.claim.task_id,
                delivery.claim.queue_id,
            )

    # --- the exchange ----------------------------------------------------------------------------

    def _follow(self, delivery: Delivery, url: str, ends_at: float) -> Received:
        claim = delivery.claim
        method, body, headers = claim.method, claim.body, self._headers(delivery, url)
        origin, target = _place(url)
        received = self._exchange(origin, method, target, headers, body, ends_at)
        if claim.service:
            return received
        for _ in range(MOST_REDIRECTS):
            url = _next_url(url, received)
            if not url:
                break
            try:
                next_origin, target = _place(url)
            except MalformedRequestError:
                break  # nowhere to go: the redirect is the reply
            if next_origin != origin:
                # Another host must not learn what proves the task to this one.
                headers = [each for each in headers if each[0].lower() != "authorization"]
                origin = next_origin
            if received.status not in _KEEPS_METHOD and method not in ("GET", "HEAD"):
                # As browsers do, and the clients of Go.
                method, body = "GET", b""
                headers = [each for each in headers if each[0].lower() not in _OF_THE_BODY]
            received = self._exchange(origin, method, target, headers, body, ends_at)
        return received

    def _exchange(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        ends_at: float,
    ) -> Received:
        parts = request_bytes(method, target, origin.shown_host, headers, body)
        sock = self._connections.take(origin)
        if sock is not None:
            try:
                return self._exchange_on(sock, origin, method, parts, ends_at)
            except NoBytesError:
                # The server let go of a connection that it had kept, most likely before it saw
                # the request. Where it did see it, the task is made twice in one attempt, which
                # at-least-once delivery allows; to fail could use up its only one.
                pass
        sock = self._connections.connect(origin, ends_at)
        return self._exchange_on(sock, origin, method, parts, ends_at)

    def _exchange_on(
        self, sock: socket.socket, origin: Origin, method: str, parts: list[bytes], ends_at: float
    ) -> Received:
        try:
            received = exchange(sock, method, parts, ends_at)
        except BaseException:
            sock.close()
            raise
        if received.may_go_on:
            self._connections.keep(origin, sock)
        else:
            sock.close()
        return received


@lru_cache(maxsize=512)
def _place(url: str) -> tuple[Origin, str]:
    """Return where a url leads, and what to ask for there."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError as error:
        raise MalformedRequestError(f"the address {url!r} is malformed: {error}") from None
    default_port = PORTS.get(parts.scheme)
    if default_port is None or not host:
        raise MalformedRequestError(f"the address {url!r} is none of http or https")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    if _BAD_ESCAPE.search(target):
        raise MalformedRequestError(f"the address {url!r} has a % that escapes nothing")
    return Origin(parts.scheme, host, port or default_port), quote(target, safe=_PATH_SAFE)


def _next_url(url: str, received: Received) -> str:
    location = received.headers.get("location", "")
    if received.status not in _REDIRECTS or not location:
        return ""
    try:
        return urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))
    except ValueError:
        return ""


# --- what came back ------------------------------------------------------------------------------


def _reply(received: Received) -> Reply:
    reply = Reply(received.status, received.body)
    retry_after = received.headers.get("retry-after")
    if retry_after is None:
        return reply
    seconds = retry_after_seconds(retry_after, received.headers.get("date", ""))
    return replace(reply, retry_after_seconds=seconds)


def retry_after_seconds(value: str, date: str) -> float:
    """Return the seconds of a header ``Retry-After``; 0 for one that says nothing.

    Args:
        value: seconds, or a date of HTTP.
        date: the reply's ``Date``, by whose clock a date is meant; "" for this machine's.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    until = _moment(value)
    if until is None:
        return 0.0
    now = _moment(date)
    return max(0.0, until - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _words(url: str, error: OSError) -> str:
    where = _shown(url)
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {where}: start the program there, or correct the address"
    if isinstance(error, socket.gaierror):
        return f"the host of {where} is not known: {error.strerror or error}"
    if isinstance(error, ssl.SSLError):
        return f"no safe connection to {where}: {error}"
    return f"the connection to {where} failed: {error.strerror or error or type(error).__name__}"


def _shown(url: str) -> str:
    """Return a url without what may be secret in it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.partition('/')[0].rpartition('@')[2]}"
