"""``google.appengine.ext``: deferred and testbed."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than this

_NOT_OURS = frozenset({"blobstore", "db", "gql", "key_range", "ndb", "remote_api", "webapp"})

if not TYPE_CHECKING:  # type checkers should tell of names that are not there

    def __getattr__(name: str) -> object:
        if name in _NOT_OURS:
            from appengine_compat import installation

            installation.refuse(__name__, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
