"""The testbed: its life cycle, its environment, and the task queue stub it gives."""

from __future__ import annotations

import base64
import datetime
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.appengine.api import apiproxy_stub_map, queueinfo, taskqueue
from google.appengine.ext import deferred, testbed

from appengine_compat.backends import choice
from appengine_compat.errors import QueueYamlError
from appengine_compat.handler import door

ran: list[Any] = []


def work(*args: Any) -> None:
    ran.append(args)


def work_that_defers(depth: int) -> None:
    ran.append(depth)
    if depth:
        deferred.defer(work_that_defers, depth - 1)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def bed() -> Iterator[testbed.Testbed]:
    bed = testbed.Testbed()
    bed.activate()
    yield bed
    bed.deactivate()


@pytest.fixture
def stub(bed: testbed.Testbed) -> Any:
    bed.init_taskqueue_stub()
    return bed.get_stub(testbed.TASKQUEUE_SERVICE_NAME)


# --- life cycle ---


@pytest.mark.parametrize("call", ["deactivate", "init_taskqueue_stub", "init_all_stubs"])
def test_what_needs_an_active_testbed_says_so(call: str) -> None:
    with pytest.raises(testbed.NotActivatedError, match=r"^The testbed is not activated\.$"):
        getattr(testbed.Testbed(), call)()


def test_get_stub_needs_an_active_testbed() -> None:
    with pytest.raises(testbed.NotActivatedError):
        testbed.Testbed().get_stub("taskqueue")


def test_there_is_no_stub_before_it_is_initialised(bed: testbed.Testbed) -> None:
    assert bed.get_stub("taskqueue") is None
    assert bed.get_stub("memcache") is None


def test_an_unknown_service_is_refused_in_app_engines_words(bed: testbed.Testbed) -> None:
    with pytest.raises(
        testbed.StubNotSupportedError, match=r'^The "nope" service is not supported by testbed$'
    ):
        bed.get_stub("nope")


def test_without_the_stub_adding_a_task_fails_and_reaches_no_backend(
    bed: testbed.Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", "localhost:1")
    with pytest.raises(AssertionError, match=r'^No api proxy found for service "taskqueue"'):
        taskqueue.add(url="/x")
    bed.init_taskqueue_stub()
    bed.init_taskqueue_stub(enable=False)
    with pytest.raises(AssertionError, match="init_taskqueue_stub"):
        deferred.defer(work)
    assert bed.get_stub("taskqueue") is None


def test_the_stub_takes_the_tasks_even_with_cloud_tasks_in_the_environment(
    stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", "localhost:1")
    monkeypatch.setenv("APPENGINE_USE_CLOUDTASK_PUSH_QUEUE", "true")
    assert deferred.defer(work).name == "task1"
    assert len(stub.get_filtered_tasks()) == 1


def test_initialising_again_begins_anew(bed: testbed.Testbed) -> None:
    bed.init_taskqueue_stub()
    assert taskqueue.add(url="/x").name == "task1"
    first = bed.get_stub("taskqueue")
    bed.init_taskqueue_stub()
    assert bed.get_stub("taskqueue") is not first
    assert taskqueue.add(url="/x").name == "task1"


def test_a_wrong_keyword_leaves_the_old_stub(bed: testbed.Testbed) -> None:
    bed.init_taskqueue_stub()
    with pytest.raises(TypeError, match="nope"):
        bed.init_taskqueue_stub(nope=1)
    assert taskqueue.add(url="/x").name == "task1"


def test_the_stub_is_registered_where_the_wild_looks(bed: testbed.Testbed) -> None:
    bed.init_all_stubs()
    stub = bed.get_stub("taskqueue")
    assert apiproxy_stub_map.apiproxy.GetStub("taskqueue") is stub
    bed.init_all_stubs(enable=False)
    assert apiproxy_stub_map.apiproxy.GetStub("taskqueue") is None


def test_deactivate_leaves_nothing_behind() -> None:
    proxies, environ = apiproxy_stub_map.apiproxy, dict(os.environ)
    bed = testbed.Testbed()
    bed.activate()
    bed.init_taskqueue_stub()
    stub = bed.get_stub("taskqueue")
    os.environ["LEFT_BY_THE_TEST"] = "1"
    assert choice.current() is stub
    bed.deactivate()
    assert apiproxy_stub_map.apiproxy is proxies
    assert dict(os.environ) == environ
    with pytest.raises(ValueError, match="not active"):
        choice.deactivate(stub)
    with pytest.raises(testbed.NotActivatedError):
        bed.deactivate()


def test_activating_twice_is_one_activation() -> None:
    environ = dict(os.environ)
    bed = testbed.Testbed()
    bed.activate()
    bed.init_taskqueue_stub()
    bed.activate()
    assert bed.get_stub("taskqueue") is None
    bed.deactivate()
    assert dict(os.environ) == environ


def test_the_door_opens_for_tests_while_a_stub_is_active(bed: testbed.Testbed) -> None:
    def trusted() -> bool:
        return door.verdict(
            {"HTTP_X_APPENGINE_TASKNAME": "task1", "REMOTE_ADDR": "0.1.0.2"}
        ).trusted

    assert not trusted()
    bed.init_taskqueue_stub()
    inner = testbed.Testbed()
    inner.activate()
    inner.init_taskqueue_stub()
    inner.deactivate()
    assert trusted()
    bed.init_taskqueue_stub(enable=False)
    assert not trusted()


@pytest.mark.parametrize(
    "name", sorted(set(testbed.INIT_STUB_METHOD_NAMES.values()) - {"init_taskqueue_stub"})
)
def test_other_services_say_what_to_install(bed: testbed.Testbed, name: str) -> None:
    with pytest.raises(testbed.StubNotSupportedError) as caught:
        getattr(bed, name)()
    assert name in str(caught.value)
    assert "pip install appengine-python-standard" in str(caught.value)
    assert "appengine_compat.install()" in str(caught.value)
    getattr(bed, name)(enable=False)


def test_the_datastore_emulator_says_what_to_install() -> None:
    with pytest.raises(testbed.StubNotSupportedError, match="pip install"):
        testbed.Testbed().activate(use_datastore_emulator=True)


def test_other_attributes_are_not_there(bed: testbed.Testbed) -> None:
    with pytest.raises(AttributeError, match="init_nope_stub"):
        bed.init_nope_stub  # noqa: B018


# --- the environment ---


def test_activate_sets_what_app_engine_has(bed: testbed.Testbed) -> None:
    assert os.environ["APPLICATION_ID"] == "testbed-test"
    assert os.environ["SERVER_SOFTWARE"] == "Development/1.0 (testbed)"
    assert os.environ["HTTP_HOST"] == testbed.DEFAULT_SERVER_NAME == "testbed.example.com"
    assert os.environ["GAE_RUNTIME"].startswith("python3")
    assert "DEFAULT_VERSION_HOSTNAME" not in os.environ


def test_what_was_set_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine-already")
    bed = testbed.Testbed()
    bed.activate()
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "mine-already"
    bed.setup_env(user_email="a@example.com", google_cloud_project="other-one", My_Thing="x")
    assert os.environ["USER_EMAIL"] == ""
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "mine-already"
    assert os.environ["MY_THING"] == "x"
    bed.setup_env(user_email="a@example.com", overwrite=True)
    assert os.environ["USER_EMAIL"] == "a@example.com"
    bed.deactivate()
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "mine-already"
    assert "MY_THING" not in os.environ


@pytest.mark.parametrize(
    ("app_id", "project"), [("my-app-1", "my-app-1"), ("s~my-app-1", "my-app-1")]
)
def test_an_app_id_sets_three_variables(bed: testbed.Testbed, app_id: str, project: str) -> None:
    bed.setup_env(app_id=app_id, overwrite=True)
    assert os.environ["APPLICATION_ID"] == os.environ["GAE_APPLICATION"] == app_id
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == project


@pytest.mark.parametrize(
    ("app_id", "rule"),
    [
        ("_", "must be at least 6 characters"),
        ("m" * 31, "must not be longer than 30 characters"),
        ("MyApp-1", "only lowercase letters, digits, or hyphens are allowed"),
        ("1myapp", "must start with a lowercase letter"),
        ("myapp-", "must not end with a hyphen"),
    ],
)
def test_an_app_id_that_is_no_project_id_is_refused(
    bed: testbed.Testbed, app_id: str, rule: str
) -> None:
    with pytest.raises(ValueError, match=f'^Invalid GCP project ID "{app_id}": {rule}.$'):
        bed.setup_env(app_id=app_id, overwrite=True)


# --- GetTasks ---


def test_a_task_is_shown_with_app_engines_keys_types_and_headers(stub: Any) -> None:
    task = taskqueue.add(url="/x", params={"b": "2"}, headers={"X-One": "1"}, countdown=100)
    (shown,) = stub.GetTasks("default")
    eta = task.eta.replace(tzinfo=datetime.timezone.utc)
    assert shown["eta_usec"] == round(eta.timestamp() * 1e6)
    assert shown["creation_time_usec"] % 1_000_000 == 0
    assert shown == {
        "name": "task1",
        "queue_name": "default",
        "url": "/x",
        "method": "POST",
        "eta": eta.strftime("%Y/%m/%d %H:%M:%S"),
        "eta_usec": shown["eta_usec"],
        "eta_delta": "0:01:39 from now",
        "body": base64.b64encode(b"b=2"),
        "creation_time_usec": shown["creation_time_usec"],
        "headers": [
            ("X-One", "1"),
            ("X-AppEngine-Current-Namespace", ""),
            ("content-type", "application/x-www-form-urlencoded"),
            ("Host", "testbed.example.com"),
            ("X-AppEngine-QueueName", "default"),
            ("X-AppEngine-TaskName", "task1"),
            ("X-AppEngine-TaskRetryCount", "0"),
            ("X-AppEngine-TaskETA", repr(shown["eta_usec"] / 1e6)),
            ("X-AppEngine-Development-Payload", "1"),
            ("Content-Length", "4"),
            ("X-AppEngine-TaskExecutionCount", "0"),
        ],
    }


def test_a_task_without_url_or_body_has_the_queues_url_and_a_content_type(stub: Any) -> None:
    taskqueue.add()
    (shown,) = stub.GetTasks("default")
    assert shown["url"] == "/_ah/queue/default"
    assert shown["body"] == b""
    assert dict(shown["headers"])["Content-Type"] == "application/octet-stream"
    assert shown["eta_delta"] == "0:00:00 ago"


def test_a_dispatch_deadline_is_shown_where_it_is_set(stub: Any) -> None:
    taskqueue.Queue().add(taskqueue.Task(url="/x", dispatch_deadline_usec=20_000_000))
    assert stub.GetTasks("default")[0]["dispatch_deadline_usec"] == 20_000_000


def test_a_task_with_a_target_gets_the_stubs_host(stub: Any) -> None:
    taskqueue.add(url="/x", target="worker")
    assert dict(stub.GetTasks("default")[0]["headers"])["host"] == "default.localhost"


def test_tasks_are_ordered_by_eta_and_name(stub: Any) -> None:
    moment = datetime.datetime.now(datetime.timezone.utc)
    for name, seconds in (("b", 0), ("late", 9), ("a", 0)):
        taskqueue.add(url="/x", name=name, eta=moment + datetime.timedelta(seconds=seconds))
    assert [task["name"] for task in stub.GetTasks("default")] == ["a", "b", "late"]


def test_an_unknown_queue_is_a_key_error_only_when_looked_at(stub: Any) -> None:
    with pytest.raises(KeyError):
        stub.GetTasks("nope")
    stub.FlushQueue("nope")
    stub.DeleteTask("nope", "task1")
    stub.DeleteTask("default", "task1")


# --- get_filtered_tasks ---


def test_tasks_come_back_as_task_objects_of_no_queue(stub: Any) -> None:
    deferred.defer(work, 1, _headers={"A": "b"}, _countdown=60)
    (task,) = stub.get_filtered_tasks()
    assert isinstance(task, taskqueue.Task)
    assert (task.name, task.url, task.method) == ("task1", "/_ah/queue/deferred", "POST")
    assert isinstance(task.payload, bytes)
    assert task.headers["A"] == "b"
    assert task.headers["X-AppEngine-QueueName"] == "default"
    assert task.headers["Content-Length"] == str(len(task.payload))
    assert task.eta.microsecond == 0
    assert task.eta.utcoffset() == datetime.timedelta(0)
    assert task.queue_name is None
    assert not task.was_enqueued
    assert task.retry_options is None


def test_a_task_can_be_as_large_as_it_was_accepted(stub: Any) -> None:
    taskqueue.add(url="/x", payload=b"x" * 102_200)
    assert len(stub.get_filtered_tasks()[0].payload) == 102_200


def test_a_get_task_has_its_query_and_no_payload(stub: Any) -> None:
    taskqueue.add(url="/get", method="GET", params={"q": ["1", "2"]})
    (task,) = stub.get_filtered_tasks()
    assert task.url == "/get?q=1&q=2"
    assert task.payload is None
    assert task.extract_params() == {"q": [b"1", b"2"]}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["a1", "a2", "b1"]),
        ({"queue_names": "alpha"}, ["a1", "a2"]),
        ({"queue_names": ["beta", "nope"]}, ["b1"]),
        ({"queue_names": ("beta", "alpha")}, ["b1", "a1", "a2"]),
        ({"queue_names": []}, []),
        ({"queue_names": "nope"}, []),
        ({"url": "/one"}, ["a1", "b1"]),
        ({"url": "/on"}, []),
        ({"url": ""}, []),
        ({"name": "a2"}, ["a2"]),
        ({"name": ""}, []),
        ({"url": "/one", "queue_names": "beta"}, ["b1"]),
        ({"url": "/one", "name": "a2"}, []),
    ],
)
def test_filters(bed: testbed.Testbed, filters: dict[str, Any], names: list[str]) -> None:
    bed.init_taskqueue_stub(_all_queues_valid=True)
    taskqueue.add(queue_name="beta", url="/one", name="b1")
    taskqueue.add(queue_name="alpha", url="/one", name="a1")
    taskqueue.add(queue_name="alpha", url="/two", name="a2", countdown=9)
    stub = bed.get_stub("taskqueue")
    assert [task.name for task in stub.get_filtered_tasks(**filters)] == names


# --- queues ---


def test_there_is_the_queue_default_without_a_file(stub: Any) -> None:
    assert stub.GetQueues() == [
        {
            "name": "default",
            "bucket_size": 5,
            "max_rate": "5.00/s",
            "mode": "push",
            "acl": None,
            "oldest_task": "",
            "eta_delta": "",
            "tasks_in_queue": 0,
        }
    ]
    with pytest.raises(taskqueue.UnknownQueueError):
        taskqueue.add(url="/x", queue_name="mail")


def test_queues_come_from_the_queue_yaml_of_the_root(bed: testbed.Testbed, tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text(
        "queue:\n- name: mail\n  rate: 30/m\n  bucket_size: 40\n  retry_parameters:\n"
        "    task_retry_limit: 4\n    task_age_limit: 1.5h\n    min_backoff_seconds: 0.5\n"
        "- name: old\n  mode: pull\n"
    )
    bed.init_taskqueue_stub(root_path=str(tmp_path))
    stub = bed.get_stub("taskqueue")
    taskqueue.add(url="/x", queue_name="mail")
    default, mail, old = stub.GetQueues()
    assert default["name"] == "default"
    assert (mail["max_rate"], mail["bucket_size"], mail["tasks_in_queue"]) == ("30/m", 40, 1)
    assert mail["eta_delta"] == "0:00:00 ago"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", mail["oldest_task"])
    assert mail["retry_parameters"] == {
        "retry_limit": 4,
        "age_limit_sec": 5400,
        "min_backoff_sec": 0.5,
    }
    assert (old["mode"], old["max_rate"]) == ("pull", "")
    with pytest.raises(taskqueue.InvalidQueueModeError):
        taskqueue.add(url="/x", queue_name="old")


def test_a_queue_config_path_wins_over_the_root(bed: testbed.Testbed, tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: root\n  rate: 1/s\n")
    (tmp_path / "other.yaml").write_text("queue:\n- name: other\n  rate: 1/s\n")
    bed.init_taskqueue_stub(root_path=tmp_path, queue_config_path=tmp_path / "other.yaml")
    names = [queue["name"] for queue in bed.get_stub("taskqueue").GetQueues()]
    assert names == ["default", "other"]


def test_a_parser_that_a_test_sets_stands_in_for_the_file(bed: testbed.Testbed) -> None:
    bed.init_taskqueue_stub(root_path="/app")
    asked: list[str] = []

    def parsed(root_path: str) -> object:
        asked.append(root_path)
        return queueinfo.LoadSingleQueue(
            "queue:\n- name: mail\n  rate: 30/m\n  bucket_size: 40\n  retry_parameters:\n"
            "    task_retry_limit: 4\n    task_age_limit: 1.5h\n"
            "- name: old\n  mode: pull\n  acl:\n  - user_email: a@example.com\n"
        )

    stub = bed.get_stub("taskqueue")
    stub.queue_yaml_parser = parsed
    taskqueue.add(url="/x", queue_name="mail")
    _, mail, old = stub.GetQueues()
    assert set(asked) == {"/app"}
    assert (mail["max_rate"], mail["bucket_size"], mail["tasks_in_queue"]) == ("30/m", 40, 1)
    assert mail["retry_parameters"] == {"retry_limit": 4, "age_limit_sec": 5400}
    assert (old["mode"], old["acl"]) == ("pull", 'user_email: "a@example.com"')
    with pytest.raises(taskqueue.UnknownQueueError, match="what queue_yaml_parser returned"):
        taskqueue.add(url="/x", queue_name="nope")


def test_a_parser_that_finds_nothing_leaves_the_default_queue(bed: testbed.Testbed) -> None:
    bed.init_taskqueue_stub(root_path="/app")
    stub = bed.get_stub("taskqueue")
    stub.queue_yaml_parser = lambda root_path: None
    assert [queue["name"] for queue in stub.GetQueues()] == ["default"]


def test_a_broken_queue_yaml_is_a_taskqueue_error_with_its_place(
    bed: testbed.Testbed, tmp_path: Path
) -> None:
    (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: fast\n")
    bed.init_taskqueue_stub(root_path=tmp_path)
    with pytest.raises(taskqueue.Error, match=r"queue\.yaml:3:9: queue 'mail': rate") as caught:
        taskqueue.add(url="/x")
    assert isinstance(caught.value, QueueYamlError)


def test_all_queues_valid(bed: testbed.Testbed) -> None:
    bed.init_taskqueue_stub(_all_queues_valid=True)
    assert taskqueue.add(url="/x", queue_name="whatever").name == "task1"


def test_clear_drops_queues_until_the_next_add(stub: Any) -> None:
    taskqueue.add(url="/x")
    stub.Clear()
    assert stub.GetQueues() == []
    with pytest.raises(KeyError):
        stub.GetTasks("default")
    assert taskqueue.add(url="/x").name == "task1"


# --- names ---


def test_flush_frees_names_and_delete_task_reserves_none(stub: Any) -> None:
    queue = taskqueue.Queue()
    queue.add(taskqueue.Task(url="/x", name="a"))
    stub.DeleteTask("default", "a")
    task = queue.add(taskqueue.Task(url="/x", name="a"))
    assert queue.delete_tasks(taskqueue.Task(name="a")).was_deleted
    assert not queue.delete_tasks(taskqueue.Task(name="a")).was_deleted
    with pytest.raises(taskqueue.TombstonedTaskError):
        queue.add(taskqueue.Task(url="/x", name="a"))
    stub.FlushQueue("default")
    assert queue.add(taskqueue.Task(url="/x", name="a")).name == task.name


def test_a_batch_with_one_bad_task_adds_none(stub: Any) -> None:
    far = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=29, hours=23)
    tasks = [taskqueue.Task(url="/x"), taskqueue.Task(url="/x", eta=far)]
    stub.gettime = lambda: far.timestamp() - 31 * 86400
    with pytest.raises(taskqueue.InvalidEtaError):
        taskqueue.Queue().add(tasks)
    assert stub.GetTasks("default") == []
    assert not any(task.was_enqueued for task in tasks)


# --- running tasks ---


def test_background_execution_runs_nothing_and_leaves_no_thread(
    bed: testbed.Testbed, caplog: pytest.LogCaptureFixture
) -> None:
    bed.init_taskqueue_stub(auto_task_running=True)
    stub = bed.get_stub("taskqueue")
    deferred.defer(work)
    stub.StartBackgroundExecution()
    assert "fixture 'tasks'" in caplog.text
    stub.EnableAutoTaskRunning()
    stub.Shutdown()
    assert ran == []
    assert len(stub.GetTasks("default")) == 1


def test_the_drain_loop_of_the_wild_with_dicts(stub: Any) -> None:
    deferred.defer(work_that_defers, 3)
    while tasks := stub.GetTasks("default"):
        stub.FlushQueue("default")
        for task in tasks:
            deferred.run(base64.b64decode(task["body"]))
    assert ran == [3, 2, 1, 0]


def test_the_drain_loop_of_the_wild_with_task_objects(stub: Any) -> None:
    deferred.defer(work_that_defers, 2)
    while tasks := stub.get_filtered_tasks():
        for task in tasks:
            stub.DeleteTask("default", task.name)
            deferred.run(task.payload)
    assert ran == [2, 1, 0]


def test_a_call_of_googles_protocol_is_refused_with_words(stub: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"taskqueue\.Add .*install\(\)"):
        apiproxy_stub_map.MakeSyncCall("taskqueue", "Add", None, None)
