"""``google.appengine.api.taskqueue``: tasks, queues, and adding the ones to the others."""

from __future__ import annotations

# The public names of the submodule are those of the package; its private ones are not.
from google.appengine.api.taskqueue import taskqueue
from google.appengine.api.taskqueue.taskqueue import *  # noqa: F403

# App Engine's list lacks these, though the package has them.
_NOT_LISTED = {
    "InvalidTaskRetryOptionsError",
    "MAX_DISPATCH_DEADLINE",
    "MAX_TAG_LENGTH",
    "MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES",
    "MIN_DISPATCH_DEADLINE",
}
__all__ = [name for name in taskqueue.__all__ if name not in _NOT_LISTED]
