"""What a door listens on, and how many may come through it."""

from __future__ import annotations

import errno
import socket

from appengine_compat.errors import ConfigError

_BACKLOG = 2048
_MOST_CONNECTIONS = 8000
_SPARE_FILES = 256
"""Left of the process's open files for the database, targets and the program around."""
_DOORS = 2
_LAST_PORT = 65_535


def bind(host: str, port: int, door: str, setting: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: the address; "::" takes IPv4 too, where the system can.
        port: the port; 0 for any that is free.
        door: what is to be served, for the error.
        setting: the option that names the port, for the error.

    Raises:
        ConfigError: nothing can listen on this address.
    """
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if not 0 <= port <= _LAST_PORT:
            # The system would take the rest of a division by 65536.
            raise ValueError(f"ports go from 0 to {_LAST_PORT}")
        # An IPv4 address first: "localhost" is both, and most clients try that one.
        found = sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
            key=lambda each: each[0] != socket.AF_INET,
        )
        family, _, _, _, address = found[0]
        is_dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            address, family=family, backlog=_BACKLOG, dualstack_ipv6=is_dual
        )
    except (OSError, ValueError) as error:  # a name that IDNA does not know is a ValueError
        raise ConfigError(
            f"Cloud Tasks' {door} cannot be served on {shown}: {_why(error)}.", setting=setting
        ) from None


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "no host can have that name. Choose an address of this machine"
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.EADDRINUSE:
        return "another program listens there. End that program, or choose another port"
    # Python adds the address to what the system says.
    system = (error.strerror or str(error)).partition(" (while")[0]
    if error.errno == errno.EACCES:
        return f"{system}. Choose a port above 1023"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{system}. It is no address of this machine: choose another"
    return system


def most_connections() -> int:
    """Return how many connections one door may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return 400
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(64, min(_MOST_CONNECTIONS, (files - _SPARE_FILES) // _DOORS))
