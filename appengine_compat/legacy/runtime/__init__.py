"""``google.appengine.runtime``: the errors of the runtime, and the context of the request."""

from __future__ import annotations


class DeadlineExceededError(BaseException):
    """A request took longer than App Engine allows.

    Differs from App Engine: nothing raises it here; servers and task queues end a request that
    takes too long. It exists so that code which catches it can be imported.
    """
