"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appengine_compat.backends import holding

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True, scope="session")
def _dispatching_is_allowed() -> Iterator[None]:
    # The plugin holds it in every test run; here it is what some tests are about.
    holding.release()
    yield
    holding.hold()
