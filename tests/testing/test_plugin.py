"""The plugin in projects of users: its options, its manners, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from appengine_compat.backends import holding

TESTS = """
    import pytest
    from google.appengine.api import apiproxy_stub_map, taskqueue
    from google.appengine.ext import deferred

    def work():
        pass
"""


# Starting up is most of what these tests take: other plugins are left out.
OTHERS = ("cacheprovider", "hypothesispytest", "randomly", "xdist", "timeout", "anyio")
WITHOUT = [word for name in OTHERS for word in ("-p", f"no:{name}")]


def run(
    pytester: pytest.Pytester, tests: str, *arguments: str, without: list[str] = WITHOUT
) -> pytest.RunResult:
    pytester.makepyfile(textwrap.dedent(TESTS) + textwrap.dedent(tests))
    return pytester.runpytest_subprocess(*without, *arguments)


def test_without_a_queue_yaml_every_queue_is_there(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(taskqueue_stub):
            deferred.defer(work, _queue="anything")
            assert [queue["name"] for queue in taskqueue_stub.GetQueues()] == [
                "anything", "default"
            ]
        """,
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("folder", [".", "src"])
def test_a_queue_yaml_that_is_found_gives_settings_and_allows_other_queues(
    pytester: pytest.Pytester, folder: str
) -> None:
    path = pytester.path / folder / "queue.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("queue:\n- name: mail\n  rate: 7/s\n")
    result = run(
        pytester,
        """
        def test_it(taskqueue_stub):
            rates = {queue["name"]: queue["max_rate"] for queue in taskqueue_stub.GetQueues()}
            assert rates["mail"] == "7/s"
            deferred.defer(work, _queue="other")
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_queue_yaml_that_is_named_has_all_the_queues_there_are(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "conf").mkdir()
    (pytester.path / "conf" / "q.yaml").write_text("queue:\n- name: mail\n  rate: 7/s\n")
    pytester.makeini("[pytest]\naec_queue_yaml = conf/q.yaml\n")
    result = run(
        pytester,
        """
        def test_it(taskqueue_stub):
            deferred.defer(work, _queue="mail")
            with pytest.raises(taskqueue.UnknownQueueError, match="conf/q.yaml; .*'mail'"):
                deferred.defer(work, _queue="mial")
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_queue_yaml_that_is_named_and_missing_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naec_queue_yaml = nope.yaml\n")
    result = run(pytester, "def test_it(taskqueue_stub):\n    deferred.defer(work)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*nope.yaml: there is no such file*"])


def test_the_stub_is_gone_after_the_test_and_found_by_the_wild_within_it(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
        from appengine_compat.backends import choice

        def test_within(taskqueue_stub):
            assert apiproxy_stub_map.apiproxy.GetStub("taskqueue") is taskqueue_stub
            assert choice.current() is taskqueue_stub

        def test_without():
            assert apiproxy_stub_map.apiproxy.GetStub("taskqueue") is None
            with pytest.raises(taskqueue.Error, match="taskqueue_stub or tasks"):
                deferred.defer(work)
        """,
    )
    result.assert_outcomes(passed=2)
    assert not (pytester.path / ".appengine-compat").exists()


def test_a_backend_that_is_chosen_is_used(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "embedded")
    result = run(
        pytester,
        """
        def test_it():
            assert deferred.defer(work).was_enqueued
        """,
    )
    result.assert_outcomes(passed=1)
    assert (pytester.path / ".appengine-compat" / "tasks.db").exists()


def test_nothing_leaves_the_process_whatever_is_set(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", "127.0.0.1:1")
    result = run(
        pytester,
        """
        import sys

        def test_it(tasks):
            deferred.defer(work)
            tasks.run_all()
            assert "grpc" not in sys.modules
        """,
    )
    result.assert_outcomes(passed=1)


APP = """
    from google.appengine.api import wrap_wsgi_app

    def hello(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    app = wrap_wsgi_app(hello, use_deferred=True)
"""


def test_importing_an_app_starts_nothing_and_makes_no_database(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(main=textwrap.dedent(APP))
    # A database of an earlier run of the app, in which tasks may wait.
    database = pytester.path / ".appengine-compat" / "tasks.db"
    database.parent.mkdir()
    database.write_bytes(b"not a database: opening it would be seen")
    pytester.makeconftest("import main\n")
    result = run(
        pytester,
        """
        import threading
        from pathlib import Path
        import main

        def test_it(tasks):
            assert threading.active_count() == 1
            tasks.app = main.app
            deferred.defer(work)
            tasks.run_all()
            assert threading.active_count() == 1
            assert [path.name for path in Path(".appengine-compat").iterdir()] == ["tasks.db"]
        """,
    )
    result.assert_outcomes(passed=1)
    assert database.read_bytes().startswith(b"not a database")


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
def test_it_works_under_xdist(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        @pytest.mark.parametrize("number", range(6))
        def test_it(tasks, number):
            assert deferred.defer(work).name == "task1"
            tasks.run_all()
            tasks.assert_deferred(work)
        """,
        "-n2",
        without=[],
    )
    result.assert_outcomes(passed=6)


def test_the_fixtures_and_options_tell_what_they_are_for(pytester: pytest.Pytester) -> None:
    result = run(pytester, "", "--fixtures", "-q")
    result.stdout.fnmatch_lines(["taskqueue_stub*", "*tasks are kept and looked at*"])
    result = pytester.runpytest_subprocess(*WITHOUT, "--help")
    result.stdout.fnmatch_lines(["*aec_queue_yaml*", "*aec_install*"])


def test_a_project_that_uses_nothing_of_it_loads_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("appengine_compat")}
            assert loaded == {
                "appengine_compat",
                "appengine_compat.backends",
                "appengine_compat.backends.holding",
                "appengine_compat.testing",
                "appengine_compat.testing.plugin",
            }
            assert not [name for name in sys.modules if name.startswith("google.appengine")]
        """
    )
    result = pytester.runpytest_subprocess(*WITHOUT)
    result.assert_outcomes(passed=1)


def test_dispatching_is_held_while_pytest_runs_and_no_longer(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from appengine_compat.backends import holding\n"
        "def test_it():\n    assert holding.holds == 1\n"
    )
    script = (
        "import pytest, sys\n"
        "from appengine_compat.backends import holding\n"
        f"status = pytest.main([*{WITHOUT!r}, {str(tmp_path)!r}])\n"
        "sys.exit(int(status) or holding.holds)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_holds_nest() -> None:
    before = holding.holds
    holding.hold()
    holding.hold()
    holding.release()
    assert holding.holds == before + 1
    holding.release()
    assert holding.holds == before
