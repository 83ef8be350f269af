"""How many files, and so connections, a server may have open."""

from __future__ import annotations

WANTED = 10_000


def raise_limit() -> None:
    """Let this process open as many files as the system allows it, up to ``WANTED``.

    A shell's own limit is often 1024, which as many idle clients would use up.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if most == resource.RLIM_INFINITY else min(WANTED, most)
    if files != resource.RLIM_INFINITY and files < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
