"""Cloud Tasks as Google's client knows it, at every door, over every kind of database.

Numbers in the names of tests are those of the list of behaviours that emulators get wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.cloud import tasks_v2

from tests.contract.cloud_tasks_doors import DOORS, LOCATION, QUEUE, STORES, Door, opened


@pytest.fixture(scope="module", params=DOORS)
def entrance(request) -> Iterator[Door]:
    with opened(request.param) as door:
        yield door


@pytest.fixture(params=STORES)
def door(entrance: Door, request, tmp_path) -> Iterator[Door]:
    entrance.behind.open(request.param, tmp_path)
    yield entrance
    entrance.behind.close()


@pytest.fixture
def client(door: Door) -> tasks_v2.CloudTasksClient:
    door.v2.create_queue(parent=LOCATION, queue={"name": QUEUE})
    return door.v2
