"""Where the services of App Engine tasks are: a table from service to address."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from appengine_compat.errors import ConfigError


class ServiceAddresses:
    """The addresses of services, and one for those that have none of their own."""

    def __init__(
        self, table: Mapping[str, str] | None = None, otherwise: str | None = None
    ) -> None:
        """Take a table over.

        Args:
            table: from ``service``, ``version.service`` or ``instance.version.service`` to
                ``http://host:port``.
            otherwise: the address of every other service.

        Raises:
            ConfigError: an address is none, or has a path: services have whole hosts.
        """
        self._table = {name: _origin(address, name) for name, address in (table or {}).items()}
        self._otherwise = None if otherwise is None else _origin(otherwise, "every other service")
        # As App Engine sends a task on whose version is not there, and one that names none.
        self._defaults: dict[str, str] = {}
        for name, address in self._table.items():
            self._defaults.setdefault(name.rpartition(".")[2], address)
        self._defaults |= {name: each for name, each in self._table.items() if "." not in name}

    def services(self) -> frozenset[str] | None:
        """Return the services that have an address; None for all."""
        return None if self._otherwise is not None else frozenset(self._defaults)

    def find(self, service: str, version: str = "", instance: str = "") -> str | None:
        """Return the address that takes a task, without a slash at the end.

        The most exact entry holds. A version or instance that has none goes to its service's; a
        service of which only versions are in the table, to the first of them.
        """
        if version:
            exact = f"{version}.{service}"
            for name in (f"{instance}.{exact}", exact) if instance else (exact,):
                if name in self._table:
                    return self._table[name]
        return self._defaults.get(service, self._otherwise)


def _origin(address: str, name: str) -> str:
    try:
        parts = urlsplit(address)
        is_origin = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.path in ("", "/")
            and not (parts.query or parts.fragment or parts.username or parts.port == 0)
        )
    except ValueError:
        is_origin = False
    if not is_origin:
        raise ConfigError(
            f"{address!r} is no address for {name}: write http://HOST:PORT, without a path, since "
            "the path is the task's.",
            setting=name,
        )
    return f"{parts.scheme}://{parts.netloc}"
