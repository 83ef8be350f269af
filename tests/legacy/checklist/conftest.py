"""A testbed for each test, and requests as a task queue makes them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.appengine.ext import testbed

Post = Callable[..., dict[str, Any]]


@pytest.fixture
def bed() -> Iterator[testbed.Testbed]:
    bed = testbed.Testbed()
    bed.activate()
    bed.init_taskqueue_stub()
    yield bed
    bed.deactivate()


@pytest.fixture
def stub(bed: testbed.Testbed) -> Any:
    return bed.get_stub(testbed.TASKQUEUE_SERVICE_NAME)


@pytest.fixture
def post() -> Post:
    """Make the environ of a task's request; keywords go over it, None takes away."""

    def post(payload: bytes = b"", **changes: Any) -> dict[str, Any]:
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/_ah/queue/deferred",
            "SERVER_SOFTWARE": "Development/1.0 (testbed)",
            "REMOTE_ADDR": "0.1.0.2",
            "CONTENT_LENGTH": str(len(payload)),
            "wsgi.input": io.BytesIO(payload),
            "HTTP_X_APPENGINE_TASKNAME": "t1",
            "HTTP_X_APPENGINE_QUEUENAME": "default",
        }
        environ.update(changes)
        return {name: value for name, value in environ.items() if value is not None}

    return post
