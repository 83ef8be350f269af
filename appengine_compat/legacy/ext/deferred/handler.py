"""``google.appengine.ext.deferred.handler``: the script that ``app.yaml`` files name."""

from __future__ import annotations

from google.appengine.ext.deferred import deferred


def main() -> None:
    """Serve one request as a CGI script."""
    deferred.main()


if __name__ == "__main__":
    main()
