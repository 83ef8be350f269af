"""``taskqueue`` answers as Google's SDK does: the same fields, or the same exception."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity import taskqueue_cases
from tests.parity.deviations import DEVIATIONS

if TYPE_CHECKING:
    from tests.parity.conftest import Side

DEVIATING = {deviation.call for deviation in DEVIATIONS}
NAME_IS_TAKEN = {"TaskAlreadyExistsError", "TombstonedTaskError"}

# What the SDK lists in the order of a set.
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_IN_ANY_ORDER = re.compile(r"(?<=methods )[A-Z, ]+|(?<=Invalid arguments: ).*")


def comparable(seen: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what may differ everywhere: deviations.py has the reasons."""
    if "raised" not in seen or "raised" not in other:
        return seen
    text = _IN_ANY_ORDER.sub(lambda match: str(sorted(match[0].split(", "))), seen["text"])
    text = _ADDRESS.sub("0x", text)
    bases = set(seen["bases"])
    if seen["raised"] in NAME_IS_TAKEN:
        bases -= NAME_IS_TAKEN
    return {
        **seen,
        "bases": sorted(bases),
        # Where App Engine says nothing, there is nothing to compare with.
        "text": text if seen["text"] and other["text"] else "",
    }


def assert_same(sdk: Side, ours: Side, code: str, **surroundings: Any) -> None:
    theirs, mine = sdk.observe(code, **surroundings), ours.observe(code, **surroundings)
    assert comparable(mine, theirs) == comparable(theirs, mine)
    assert mine.get("text") != "" or theirs["raised"] == "AssertionError"


@pytest.mark.parametrize(
    ("code", "surroundings"),
    [case for case in taskqueue_cases.cases() if case[0] not in DEVIATING],
)
def test_same_answer(code: str, surroundings: dict[str, Any], sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, code, **surroundings)


# --- where the input is open-ended -----------------------------------------------------------

_texts = st.text(max_size=8)
_values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), _texts, st.binary(max_size=5),
    st.lists(_texts, max_size=3), st.floats(allow_nan=False, allow_infinity=False, width=16),
)  # fmt: skip
_tokens = st.text("abcXYZ-_09", min_size=1, max_size=8)
_urls = st.one_of(
    st.just(""),
    st.text("/ab?=&#:.;%é ", max_size=10),
    st.text("/ab?=&", max_size=10).map(lambda text: "/" + text),
)
_options = st.fixed_dictionaries(
    {},
    optional={
        "payload": _values,
        "name": st.one_of(_tokens, _texts),
        "url": _urls,
        "method": st.sampled_from(["GET", "post", "PUT", "HEAD", "DELETE", "PULL", "PATCH"]),
        "params": st.one_of(st.none(), st.dictionaries(_texts, _values, max_size=3)),
        "headers": st.one_of(
            st.none(),
            st.dictionaries(
                st.one_of(_tokens, st.sampled_from(["Content-Type", "content-type", "X-A", "x-a"])),
                st.one_of(_texts, st.lists(_texts, max_size=2), st.integers(0, 9)),
                max_size=4,
            ),
        ),
        "countdown": st.one_of(st.none(), st.integers(-9, 3 * 10**6), _texts),
        "target": st.one_of(st.none(), _tokens),
        "tag": st.one_of(st.none(), _texts),
        "dispatch_deadline_usec": st.one_of(st.none(), st.integers(14 * 10**6, 87 * 10**9)),
    },
)
_numbers = st.one_of(
    st.none(), st.integers(-2, 9), st.floats(-2, 9, allow_nan=False), st.just("x")
)  # fmt: skip

_often = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@_often
@given(options=_options, in_request=st.booleans())
def test_same_task(options: dict[str, Any], in_request: bool, sdk: Side, ours: Side) -> None:
    around = taskqueue_cases.REQUEST if in_request else {}
    assert_same(sdk, ours, f"Task(**{options!r})", **around)


@_often
@given(options=_options.filter(lambda options: options.get("method") != "PULL"))
def test_same_task_in_the_stub(options: dict[str, Any], sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, f"Queue().add(Task(**{options!r}))", testbed=True)


@_often
@given(options=_options)
def test_same_parameters(options: dict[str, Any], sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, f"Task(**{options!r}).extract_params()")


@_often
@given(
    options=st.dictionaries(
        st.sampled_from(
            [
                "min_backoff_seconds",
                "max_backoff_seconds",
                "max_doublings",
                "task_retry_limit",
                "task_age_limit",
            ]
        ),
        _numbers,
    )
)
def test_same_retry_options(options: dict[str, Any], sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, f"TaskRetryOptions(**{options!r})")


@_often
@given(name=st.one_of(_tokens, _texts))
def test_same_queue_name(name: str, sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, f"Queue({name!r})")


# --- what a queue remembers ------------------------------------------------------------------

_names = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), _names),
        st.tuples(st.just("delete"), _names),
        st.tuples(st.just("add unnamed"), st.just([])),
        st.tuples(st.just("purge"), st.just([])),
        st.tuples(st.just("flush"), st.just([])),
        st.tuples(st.just("add elsewhere"), _names),
    ),
    max_size=12,
)
_PROGRAM = """
seen = []
stub = bed.get_stub("taskqueue")
for step, names in {steps!r}:
    tasks = [Task(name=name) for name in names]
    try:
        if step == "add":
            Queue().add(tasks)
        elif step == "delete":
            Queue().delete_tasks(tasks)
        elif step == "add unnamed":
            seen.append(taskqueue.add().name)
        elif step == "purge":
            Queue().purge()
        elif step == "flush":
            stub.FlushQueue("default")
        else:
            Queue("elsewhere").add(tasks)
    except Exception as error:
        seen.append(type(error).__name__)
    seen.append([(task.was_enqueued, task.was_deleted, task.queue_name) for task in tasks])
    seen.append(sorted(task["name"] for task in stub.GetTasks("default")))
    seen.append(Queue().fetch_statistics().tasks)
seen
"""


@settings(_often, max_examples=75)
@given(steps=_steps)
def test_same_memory(steps: list[tuple[str, list[str]]], sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, _PROGRAM.format(steps=steps), testbed=True)
