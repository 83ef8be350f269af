"""Several transports as one: apps of this process, and addresses for all else."""

from __future__ import annotations

from appengine_compat.core import outcome
from appengine_compat.local.delivery import Delivery, Reply, Transport


class JoinedTransport:
    """Delivers by the first of its transports that reaches a task's service."""

    def __init__(self, *transports: Transport) -> None:
        """Join transports, the one that goes before the others first."""
        self._transports = transports

    def services(self) -> frozenset[str] | None:
        """Return the services that any of them reaches."""
        all_services: frozenset[str] = frozenset()
        for each in self._transports:
            services = each.services()
            if services is None:
                return None
            all_services |= services
        return all_services

    def send(self, delivery: Delivery) -> Reply:
        """Deliver by the one that reaches the service."""
        service = delivery.claim.service
        for each in self._transports:
            services = each.services()
            if services is None or service in services:
                return each.send(delivery)
        return Reply(outcome.NO_REPLY, error=f"nothing here reaches the service {service!r}")
