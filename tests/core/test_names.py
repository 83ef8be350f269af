"""Resource names are taken apart and put together without loss, and bad ones are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import names
from appengine_compat.errors import ApiError

projects = st.from_regex(r"\A[A-Za-z0-9:.\-]{1,40}\Z")
locations = st.from_regex(r"\A[A-Za-z0-9\-]{1,30}\Z")
queues = st.from_regex(r"\A[A-Za-z0-9\-]{1,100}\Z")
tasks = st.from_regex(r"\A[A-Za-z0-9_\-]{1,500}\Z")


@given(projects, locations, queues, tasks)
def test_names_survive_the_round_trip(project, location, queue, task):
    name = names.QueueName(project, location, queue)
    assert names.parse_queue_name(str(name)) == name
    assert names.parse_task_name(name.task(task)) == (name, task)
    assert str(name).startswith(name.parent)
    assert names.short_id(name.task(task)) == task


@pytest.mark.parametrize(
    "bad",
    ["", "q", "projects/p/locations/l/queues/", "projects/p/locations/l/queues/a_b",
     "projects/p/locations/l/queues/a\n", "projects/p/locations/l/queues/" + "a" * 101,
     "projects//locations/l/queues/q", "x/projects/p/locations/l/queues/q"],
)  # fmt: skip
def test_a_queue_name_of_another_shape_is_refused_with_the_services_text(bad):
    with pytest.raises(ApiError, match="Queue name must be formatted") as caught:
        names.parse_queue_name(bad)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.help_links


@pytest.mark.parametrize("bad", ["a.b", "a/b", "a:b", "", "ü", "a" * 501, "a\n"])
def test_a_task_id_of_other_characters_is_refused_with_the_services_text(bad):
    with pytest.raises(ApiError, match="can contain only letters"):
        names.parse_task_name(f"projects/p/locations/l/queues/q/tasks/{bad}")


def test_a_task_name_without_its_queue_is_refused():
    with pytest.raises(ApiError, match="Invalid resource field value"):
        names.parse_task_name("tasks/17")


def test_automatic_ids_are_digits_and_differ():
    made = {names.automatic_task_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == 19 and each.isdigit() for each in made)
