"""What an app sees of task headers, whatever came: only true ones, under App Engine's names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.handler import door, view
from appengine_compat.local import tokens

SECRET = b"the secret of the view's test"
FACTS = [
    "TASKNAME", "QUEUENAME", "TASKRETRYCOUNT", "TASKEXECUTIONCOUNT", "TASKETA", "USER_IP", "CRON",
    "USER_IS_ADMIN", "CURRENT_NAMESPACE", "FAILFAST", "SIGNATURE", "CARRIED_HOST",
    "CARRIED_X_APPENGINE_TASKNAME", "CARRIED_X_APPENGINE_CURRENT_NAMESPACE",
    "CARRIED_X_APPENGINE_USER_IP", "CARRIED_REMOTE_USER", "",
]  # fmt: skip
FAMILIES = (view.APP_ENGINE, view.CLOUD_TASKS, view.OURS)

names = st.builds(str.__add__, st.sampled_from(FAMILIES), st.sampled_from(FACTS))
others = st.sampled_from(["HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_X_FORWARDED_FOR", "REMOTE_USER"])
latin = st.text(st.characters(max_codepoint=255), max_size=12)
headers = st.dictionaries(names | others | latin.map("HTTP_X_".__add__), latin, max_size=12)


@pytest.fixture(autouse=True, scope="module")
def elsewhere() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "APPENGINE_COMPAT_BACKEND"):
            patch.delenv(variable, raising=False)
        tokens.register_secret(SECRET)
        yield


def environ(sent: dict[str, str]) -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "REMOTE_ADDR": "203.0.113.9", **sent}


@given(headers)
def test_nothing_is_left_of_what_nobody_vouches_for(sent: dict[str, str]) -> None:
    shown = environ(sent)
    view.prepare(shown)
    assert not [name for name in shown if name.startswith(FAMILIES)]
    assert not door.verdict(shown).trusted
    assert shown["REMOTE_ADDR"] == "203.0.113.9"
    untouched = {name: value for name, value in sent.items() if not name.startswith(FAMILIES)}
    assert shown.items() >= untouched.items()


@given(headers)
def test_of_a_task_only_what_the_service_said_is_shown(sent: dict[str, str]) -> None:
    true = {
        "HTTP_X_CLOUDTASKS_QUEUENAME": "q",
        "HTTP_X_CLOUDTASKS_TASKNAME": "t",
        "HTTP_X_AEC_LOCAL_TOKEN": tokens.make(SECRET, queue_id="q", task_id="t", path="/x"),
    }
    shown = environ({**sent, **true})
    view.prepare(shown)
    assert door.verdict(shown).trusted
    assert shown["HTTP_X_APPENGINE_QUEUENAME"] == "q"
    assert shown["HTTP_X_APPENGINE_TASKNAME"] == "t"
    assert shown["REMOTE_ADDR"] == shown["HTTP_X_APPENGINE_USER_IP"] == "0.1.0.2"
    assert not [name for name in shown if name.startswith(view.OURS)]
    # Beside Cloud Tasks' headers, App Engine's are a stranger's, but for what the task carried.
    carried = {name[len(view.CARRIED) :] for name in sent if name.startswith(view.CARRIED)}
    for name in ("USER_IS_ADMIN", "CRON"):
        assert view.APP_ENGINE + name not in shown or f"X_APPENGINE_{name}" in carried
    again = dict(shown)
    view.prepare(again)
    assert again == shown
