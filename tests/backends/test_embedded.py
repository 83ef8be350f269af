"""The embedded service: where tasks are kept, what it says when it cannot, who runs them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from appengine_compat import settings
from appengine_compat.backends import embedded, holding
from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.backends.embedded import EmbeddedBackend
from appengine_compat.core.model import Queue
from appengine_compat.local.delivery import Outcome
from appengine_compat.local.store import Store

PATIENCE_SECONDS = 20.0
WORK = TaskRequest(relative_url="/work", payload=b"payload")


@pytest.fixture
def backend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = EmbeddedBackend(str(tmp_path / "tasks.db"))
    yield backend
    assert backend.close(PATIENCE_SECONDS) == []


class App:
    def __init__(self, status="200 OK"):
        self.status = status
        self.paths: list[str] = []

    def __call__(self, environ, start_response):
        self.paths.append(environ["PATH_INFO"])
        start_response(self.status, [])
        return [b""]


def settle(backend) -> None:
    assert backend.service().wait_idle(PATIENCE_SECONDS)


def refused(backend, reason, queue="default", request=WORK) -> str:
    try:
        error = backend.create_tasks(queue, [request])[0].error
    except BackendError as raised:
        error = raised
    assert error is not None
    assert error.reason is reason
    return str(error)


# --- running ---


def test_a_task_runs_in_the_registered_app(backend):
    app = App()
    backend.register_app(app, "default", is_set_up=True)
    backend.create_tasks("default", [WORK])
    settle(backend)
    assert app.paths == ["/work"]


def test_without_an_app_tasks_are_kept_and_an_app_registered_later_runs_them(backend):
    backend.create_tasks("default", [WORK])
    assert backend.queue_stats(["default"])[0].tasks_count == 1
    app = App()
    backend.register_app(app, "default", is_set_up=True)
    assert backend.start()
    settle(backend)
    assert app.paths == ["/work"]


def test_each_service_has_its_own_app(backend):
    first, second = App(), App()
    backend.register_app(first, "default", is_set_up=True)
    backend.register_app(second, "api", is_set_up=True)
    backend.create_tasks(
        "default",
        [
            TaskRequest(relative_url="/a"),
            TaskRequest(relative_url="/b", target="api"),
            TaskRequest(relative_url="/c", target="v1.api"),
        ],
    )
    settle(backend)
    assert first.paths == ["/a"]
    assert sorted(second.paths) == ["/b", "/c"]


def test_an_app_registered_while_dispatching_takes_its_tasks(backend):
    backend.register_app(App(), "default", is_set_up=True)
    backend.create_tasks("default", [WORK, TaskRequest(relative_url="/b", target="api")])
    settle(backend)
    late = App()
    backend.register_app(late, "api", is_set_up=True)
    settle(backend)
    assert late.paths == ["/b"]


def test_observers_see_each_attempt(backend):
    seen = []
    backend.observe(seen.append)
    backend.register_app(App("500 No"), "default", is_set_up=True)
    backend.create_tasks("default", [WORK])
    settle(backend)
    assert (seen[0].outcome, seen[0].status, seen[0].body) == (Outcome.RETRY, 500, b"payload")


def test_nothing_is_dispatched_while_that_is_held(backend):
    app = App()
    backend.register_app(app, "default", is_set_up=True)
    holding.hold()
    try:
        backend.create_tasks("default", [WORK])
        assert not backend.start()
        assert not backend.service().is_started
    finally:
        holding.release()
    assert backend.start()
    settle(backend)
    assert app.paths == ["/work"]


def test_after_close_the_next_task_opens_it_again(backend):
    app = App()
    backend.register_app(app, "default", is_set_up=True)
    for _ in range(2):
        backend.create_tasks("default", [WORK])
        settle(backend)
        assert backend.close(PATIENCE_SECONDS) == []
    assert len(app.paths) == 2


def test_in_memory_it_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = EmbeddedBackend("")
    app = App()
    backend.register_app(app, "default", is_set_up=True)
    backend.create_tasks("default", [WORK])
    settle(backend)
    backend.close()
    assert app.paths == ["/work"]
    assert list(tmp_path.iterdir()) == []


# --- services ---


def test_a_service_that_no_table_knows_is_refused_at_once(backend, tmp_path):
    (tmp_path / "appengine-compat.toml").write_text('[services]\nworker = "http://localhost:1"\n')
    backend.register_app(App(), "default", is_set_up=True)
    request = TaskRequest(relative_url="/x", target="wroker")
    text = refused(backend, Reason.INVALID_TARGET, request=request)
    assert "no service 'wroker'" in text
    assert "those known are: default, worker. Add wroker = " in text
    assert backend.queue_stats(["default"])[0].tasks_count == 0


def test_a_refused_target_lets_the_others_of_the_call_through(backend, monkeypatch):
    monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "worker=http://localhost:1")
    requests = [TaskRequest(relative_url="/x", target=target) for target in ("worker", "wroker")]
    taken, not_taken = backend.create_tasks("default", requests)
    assert taken.error is None
    assert not_taken.error.reason is Reason.INVALID_TARGET


def test_a_service_of_the_table_may_be_served_by_a_process_that_comes_later(backend, monkeypatch):
    monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "worker=http://localhost:1")
    backend.create_tasks("default", [TaskRequest(relative_url="/x", target="worker")])
    app = App()
    backend.register_app(app, "worker", is_set_up=True)
    backend.start()
    settle(backend)
    assert app.paths == ["/x"]


def test_whoever_enqueues_is_a_service_though_the_table_forgets_it(backend, monkeypatch):
    monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "worker=http://localhost:1")
    assert backend.create_tasks("default", [WORK])[0].error is None


# --- queues ---


def test_without_a_queue_yaml_there_is_the_default_queue_alone(backend):
    text = refused(backend, Reason.UNKNOWN_QUEUE, "defualt")
    assert text.startswith(
        "There is no queue 'defualt'; did you mean default? Add it to a queue.yaml"
    )


def test_the_queues_of_the_working_directorys_queue_yaml(backend, tmp_path):
    (tmp_path / "queue.yaml").write_text(
        "queue:\n- name: push-notifications\n  rate: 5/s\n  retry_parameters:\n"
        "    task_retry_limit: 2\n"
    )
    backend.create_tasks("push-notifications", [WORK])
    backend.create_tasks("default", [WORK])
    queue = backend.service().get_queue(str(backend.queue_name("push-notifications")))
    assert queue.rate_limits.max_dispatches_per_second == 5
    assert queue.retry_config.max_attempts == 3
    text = refused(backend, Reason.UNKNOWN_QUEUE, "push-notification")
    assert "did you mean push-notifications? Add it to queue.yaml" in text


def test_a_queue_that_left_the_file_keeps_its_tasks(tmp_path):
    path = str(tmp_path / "tasks.db")
    name = "projects/local/locations/local/queues/old"
    before = EmbeddedBackend(path, queues=[Queue(name=name)])
    before.create_tasks("old", [WORK])
    before.close()
    after = EmbeddedBackend(path, queues=[])
    assert after.queue_stats(["old"])[0].tasks_count == 1
    app = App()
    after.register_app(app, "default", is_set_up=True)
    after.start()
    settle(after)
    assert app.paths == ["/work"]
    after.close()


def test_a_broken_queue_yaml_is_told_at_the_first_task(backend, tmp_path):
    (tmp_path / "queue.yaml").write_text("queue:\n- name: q\n  rate: fast\n")
    with pytest.raises(settings.ConfigError, match=r"queue\.yaml:3:9"):
        backend.create_tasks("default", [WORK])


def test_a_name_that_no_queue_can_have(backend):
    assert "1 to 100 letters" in refused(backend, Reason.INVALID_QUEUE_NAME, "a_b")


# --- refusals ---


def test_a_task_that_is_too_large_is_told_with_its_size_and_the_limit(backend):
    request = TaskRequest(relative_url="/x", payload=bytes(1_048_569), name="big")
    text = refused(backend, Reason.TASK_TOO_LARGE, request=request)
    assert "Task 'big' of queue 'default' takes 1,048," in text
    assert "the limit is 1,048,569" in text
    assert backend.queue_stats(["default"])[0].tasks_count == 0


def test_a_task_just_within_the_limit_is_taken_and_one_byte_more_told_exactly(backend):
    def create(payload_bytes):
        request = TaskRequest(relative_url="/x", payload=bytes(payload_bytes))
        return backend.create_tasks("default", [request])[0].error

    around = create(1_048_569).args[0]
    over = int(re.search(r"takes ([\d,]+) bytes", around)[1].replace(",", "")) - 1_048_569
    assert create(1_048_569 - over) is None
    assert "takes 1,048,570 bytes as stored" in create(1_048_570 - over).args[0]


def test_a_full_disk_reaches_whoever_defers(backend):
    backend.create_tasks("default", [WORK])
    store = backend.service().store
    pages = store.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    store.read(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))
    text = refused(
        backend, Reason.TRANSIENT, request=TaskRequest(relative_url="/x", payload=bytes(200_000))
    )
    assert "Queue 'default': Tasks cannot be kept in" in text
    assert "database or disk is full" in text
    assert "free space on its disk" in text
    assert backend.queue_stats(["default"])[0].tasks_count == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's file size limit")
def test_a_disk_that_takes_no_more_bytes_is_told_and_loses_nothing(tmp_path):
    """The operating system itself refuses to write, in a process of its own."""
    script = """
        import json, resource, signal, sys
        from appengine_compat.backends.base import BackendError, TaskRequest
        from appengine_compat.backends.embedded import EmbeddedBackend
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        backend = EmbeddedBackend(sys.argv[1])
        accepted = 0
        backend.create_tasks("default", [TaskRequest(relative_url="/first")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        error = ""
        while not error:
            try:
                task = TaskRequest(relative_url="/x", payload=bytes(9000))
                backend.create_tasks("default", [task])
                accepted += 1
            except BackendError as refused:
                error = f"{refused.reason.name} {refused}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        backend.create_tasks("default", [TaskRequest(relative_url="/last")])
        print(json.dumps([accepted, error]))
        backend.close()
    """
    path = str(tmp_path / "tasks.db")
    done = run(script, path, cwd=tmp_path)
    accepted, error = json.loads(done)
    assert accepted > 5
    assert error.startswith("TRANSIENT Queue 'default': Tasks cannot be kept in ")
    backend = EmbeddedBackend(path)
    assert backend.queue_stats(["default"])[0].tasks_count == accepted + 2
    backend.close()


def test_a_database_that_takes_no_queues_is_told_and_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tasks.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON queues "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    # While the error is held, so is the frame that opened the file: only closing ends its log.
    with pytest.raises(BackendError, match="free space on its disk") as caught:
        EmbeddedBackend(str(path)).create_tasks("default", [WORK])
    assert not Path(f"{path}-wal").exists()
    assert caught.value.reason is Reason.TRANSIENT


def test_a_corrupt_file_is_kept_aside_and_tasks_find_a_place(backend, tmp_path, caplog):
    (tmp_path / "tasks.db").write_bytes(b"not a database" * 1000)
    with caplog.at_level(logging.ERROR):
        assert backend.create_tasks("default", [WORK])[0].error is None
    (aside,) = tmp_path.glob("tasks.db.corrupt-*")
    assert aside.read_bytes() == b"not a database" * 1000
    assert "is damaged" in caplog.text


def test_a_file_of_a_newer_version_is_told(tmp_path):
    first = EmbeddedBackend(str(tmp_path / "tasks.db"))
    first.service().store.write(lambda connection: connection.execute("PRAGMA user_version=99"))
    first.close()
    assert "newer appengine-compat" in refused(
        EmbeddedBackend(str(tmp_path / "tasks.db")), Reason.TRANSIENT
    )


# --- the one of the process ---


@pytest.fixture
def configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shared.db"
    settings.configure(db=str(path))
    yield path
    settings.configure(db=None)
    embedded.close(PATIENCE_SECONDS)
    embedded._shared.pop(str(path), None)


def test_there_is_one_per_database(configured, tmp_path):
    first = embedded.shared()
    assert embedded.shared() is first
    settings.configure(db=str(tmp_path / "elsewhere.db"))
    assert embedded.shared() is not first


def test_registering_an_app_starts_it_when_tasks_of_an_earlier_run_may_wait(configured):
    embedded.register_app(App(), "default")
    assert not configured.exists()
    assert not embedded.shared().service().is_started
    embedded.close()
    embedded._shared.clear()
    earlier = EmbeddedBackend(str(configured))
    earlier.create_tasks("default", [WORK])
    earlier.close()
    app = App()
    embedded.register_app(app, "default")
    settle(embedded.shared())
    assert app.paths == ["/work"]


def test_an_app_is_served_even_if_the_database_cannot_be_opened(configured, caplog):
    configured.mkdir()
    embedded.register_app(App(), "default")
    assert "Tasks are not dispatched" in caplog.text


# --- processes ---


def run(script: str, *args: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        cwd=cwd, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_parent_and_child_both_enqueue(tmp_path):
    script = """
        import os, sys
        from appengine_compat.backends.base import TaskRequest
        from appengine_compat.backends.embedded import EmbeddedBackend
        ran = os.open("ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        def app(environ, start_response):
            os.write(ran, environ["PATH_INFO"].encode())
            start_response("200 OK", [])
            return []
        backend = EmbeddedBackend("tasks.db")
        backend.register_app(app, "default", is_set_up=True)
        backend.create_tasks("default", [TaskRequest(relative_url="/before")])
        child = os.fork()
        name = "child" if child == 0 else "parent"
        for number in range(20):
            backend.create_tasks("default", [TaskRequest(relative_url=f"/{name}{number}")])
        while backend.queue_stats(["default"])[0].tasks_count:
            backend.service().wait_idle(0.1)
        left = backend.close()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        assert left == []
    """
    run(script, cwd=tmp_path)
    ran = (tmp_path / "ran").read_text().split("/")[1:]
    expected = ["before"] + [
        f"{who}{number}" for who in ("parent", "child") for number in range(20)
    ]
    assert sorted(ran) == sorted(expected)


def test_two_processes_on_one_file_never_dispatch_the_same_attempt(tmp_path):
    script = """
        import os, sys
        from appengine_compat.backends.base import TaskRequest
        from appengine_compat.backends.embedded import EmbeddedBackend
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        def app(environ, start_response):
            name, attempt = environ["PATH_INFO"], environ["HTTP_X_APPENGINE_TASKRETRYCOUNT"]
            os.write(log, f"{os.getpid()} {name} {attempt}\\n".encode())
            fails = attempt == "0" and name.endswith("7")
            start_response("500 No" if fails else "200 OK", [])
            return []
        backend = EmbeddedBackend("tasks.db", threads=4)
        backend.register_app(app, "default", is_set_up=True)
        backend.start()
        sys.stdin.readline()
        for number in range(200):
            backend.create_tasks("default", [TaskRequest(relative_url=f"/{sys.argv[1]}-{number}")])
        while backend.queue_stats(["default"])[0].tasks_count:
            backend.service().wait_idle(0.1)
        assert backend.close() == []
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), name],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        assert child.wait(60) == 0
        child.stdin.close()
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    attempts = [(name, attempt) for _, name, attempt in lines]
    assert len(attempts) == len(set(attempts))
    assert {name for name, _ in attempts} == {f"/{w}-{n}" for w in "ab" for n in range(200)}
    assert sum(attempt == "1" for _, attempt in attempts) == 40
    assert len({pid for pid, _, _ in lines}) == 2


def test_the_tasks_of_a_killed_process_run_again_at_once_in_another(tmp_path):
    script = """
        import os, sys, time
        from appengine_compat.backends.base import TaskRequest
        from appengine_compat.backends.embedded import EmbeddedBackend
        def app(environ, start_response):
            print(environ["HTTP_X_APPENGINE_TASKRETRYCOUNT"], flush=True)
            time.sleep(60)
        backend = EmbeddedBackend("tasks.db")
        backend.register_app(app, "default", is_set_up=True)
        backend.create_tasks("default", [TaskRequest(relative_url="/work")])
        time.sleep(60)
    """
    survivor = EmbeddedBackend(str(tmp_path / "tasks.db"))
    seen: list[str] = []
    has_run = threading.Event()

    def app(environ, start_response):
        seen.append(environ["HTTP_X_APPENGINE_TASKRETRYCOUNT"])
        has_run.set()
        start_response("200 OK", [])
        return []

    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"0\n"
        survivor.register_app(app, "default", is_set_up=True)
        survivor.start()
        settle(survivor)
        assert seen == []
        child.kill()
        child.wait()
        assert has_run.wait(PATIENCE_SECONDS)
    settle(survivor)
    # The attempt that was cut off counts: the task is told that it is not the first.
    assert seen == ["1"]
    assert survivor.close(PATIENCE_SECONDS) == []
    assert [each.name for each in tmp_path.glob("*owner*")] == []


def test_a_program_that_ends_leaves_its_tasks_for_the_next_start(tmp_path):
    script = """
        from appengine_compat.backends.base import TaskRequest
        from appengine_compat.backends.embedded import EmbeddedBackend
        backend = EmbeddedBackend("tasks.db")
        backend.create_tasks("default", [TaskRequest(relative_url=f"/{n}") for n in range(5)])
    """
    run(script, cwd=tmp_path)
    backend = EmbeddedBackend(str(tmp_path / "tasks.db"))
    app = App()
    backend.register_app(app, "default", is_set_up=True)
    backend.start()
    settle(backend)
    assert sorted(app.paths) == ["/0", "/1", "/2", "/3", "/4"]
    backend.close()
