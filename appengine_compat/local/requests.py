"""What is sent for a claimed task: the task's own headers, and those of the attempt."""

from __future__ import annotations

from appengine_compat.core import headers, limits, moments
from appengine_compat.core.headers import AttemptFacts, Family
from appengine_compat.core.model import Queue
from appengine_compat.local import tokens
from appengine_compat.local.delivery import Claim, Delivery
from appengine_compat.local.queue_routing import routed
from appengine_compat.local.wsgi_transport import wsgi_path

_NOT_SENT = frozenset({"content-length", headers.LOCAL_TOKEN_HEADER.lower()})


def delivery_of(claim: Claim, secret: bytes, queue: Queue | None = None) -> Delivery:
    """Return the request of a claim's attempt, as the queue's own routing sends it.

    Tasks for services carry the token that proves where they come from; an address anywhere is
    not told it.
    """
    claim = routed(claim, queue)
    family = Family.APP_ENGINE if claim.service else Family.HTTP
    facts = AttemptFacts(
        queue_id=claim.queue_id,
        task_id=claim.task_id,
        eta=moments.to_datetime(claim.due),
        retries=claim.attempt - 1,
        replies=claim.executions,
        previous_response=claim.previous_status,
    )
    sent = [each for each in claim.headers.items() if each[0].lower() not in _NOT_SENT]
    sent += headers.task_headers(family, facts)
    if family is Family.APP_ENGINE:
        token = tokens.make(
            secret,
            queue_id=claim.queue_id,
            task_id=claim.task_id,
            path=wsgi_path(claim.url)[0],
        )
        sent.append((headers.LOCAL_TOKEN_HEADER, token))
    deadline = claim.deadline_ms / 1000 or limits.DEFAULT_DISPATCH_DEADLINE_SECONDS
    return Delivery(claim, tuple(sent), deadline)
