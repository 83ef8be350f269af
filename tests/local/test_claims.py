"""What is asked at every start, whose cost must not grow with the tasks that wait."""

from __future__ import annotations

import pytest

from appengine_compat.local import claims
from appengine_compat.local.store import Store


def plans(store: Store, ask) -> list[str]:
    """Return how SQLite finds the tasks for what a function does."""

    def run(connection) -> list[str]:
        connection.execute("INSERT INTO queues (name, state, settings) VALUES ('q', '', '')")
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        ask(connection)
        connection.set_trace_callback(None)
        return [
            row[3]
            for statement in asked
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]

    return store.write(run)


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: claims.release_owner(connection, 7),
        lambda connection: claims.running_elsewhere(connection, 1, 7),
    ],
    ids=["release_owner", "running_elsewhere"],
)
def test_claimed_tasks_are_found_without_looking_at_those_that_wait(ask) -> None:
    store = Store(None)
    found = [plan for plan in plans(store, ask) if " tasks " in plan]
    store.close()
    assert found
    assert all("tasks_claimed" in plan for plan in found), found
