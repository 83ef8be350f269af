"""The fixtures of the pytest plugin in a project that keeps Google's SDK beside us."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = "appengine_compat.testing.plugin"

APP = """
    from google.appengine.api import wrap_wsgi_app
    from google.appengine.ext import deferred, ndb

    class Count(ndb.Model):
        number = ndb.IntegerProperty(default=0)

    def count(name, more=0):
        entity = Count.get_by_id(name) or Count(id=name)
        entity.number += 1
        entity.put()
        if more:
            deferred.defer(count, name, more - 1)

    def app(environ, start_response):
        start_response("404 Not Found", [])
        return [b""]

    app = wrap_wsgi_app(app, use_deferred=True)
"""
# In the way of projects that came from App Engine: a testbed of Google's for the rest.
CONFTEST = """
    import pytest
    from google.appengine.ext import ndb, testbed

    @pytest.fixture(autouse=True)
    def bed():
        bed = testbed.Testbed()
        bed.activate()
        bed.init_datastore_v3_stub()
        bed.init_memcache_stub()
        ndb.get_context().clear_cache()
        yield bed
        bed.deactivate()
"""


def run_tests(python: str, folder: Path, tests: str, *, ini: str = "aec_install = true") -> str:
    """Run tests in a project of its own; return what pytest says."""
    for name, text in (
        ("app.py", APP),
        ("conftest.py", CONFTEST),
        ("test_app.py", "import pytest\n" + textwrap.dedent(tests)),
        ("pytest.ini", f"[pytest]\n{ini}\n"),
    ):
        (folder / name).write_text(textwrap.dedent(text))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("APPENGINE_COMPAT_", "GAE_", "GOOGLE_", "PYTEST_", "SERVER_"))
    }
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider"],
        cwd=folder,
        env={
            **inherited,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            # By -p alone, for a checkout may also be found by its entry point.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_tasks_run_through_the_handler_and_the_sdks_ndb(sdk_python: str, tmp_path: Path) -> None:
    said = run_tests(
        sdk_python,
        tmp_path,
        """
        import app
        from google.appengine.ext import deferred

        def test_work(tasks):
            deferred.defer(app.count, "a", more=2)
            tasks.assert_deferred(app.count, "a", more=2)
            tasks.app = app.app
            tasks.run_until_idle()
            assert app.Count.get_by_id("a").number == 3

        def test_nothing_is_left_of_it(tasks):
            assert app.Count.get_by_id("a") is None
            tasks.assert_nothing_deferred()
        """,
    )
    assert "2 passed" in said, said


def test_the_stub_is_in_the_sdks_map_and_gone_after(sdk_python: str, tmp_path: Path) -> None:
    said = run_tests(
        sdk_python,
        tmp_path,
        """
        from google.appengine.api import apiproxy_stub_map, taskqueue

        def test_with(taskqueue_stub):
            assert apiproxy_stub_map.apiproxy.GetStub("taskqueue") is taskqueue_stub
            taskqueue.add(url="/x")
            assert [task.url for task in taskqueue_stub.get_filtered_tasks()] == ["/x"]

        def test_without():
            assert apiproxy_stub_map.apiproxy.GetStub("taskqueue") is None
            with pytest.raises(AssertionError, match="init_taskqueue_stub"):
                taskqueue.add(url="/x")

        def test_the_testbeds_own(bed):
            bed.init_taskqueue_stub()
            taskqueue.add(url="/y")
            assert [task.url for task in bed.get_stub("taskqueue").get_filtered_tasks()] == ["/y"]
        """,
    )
    assert "3 passed" in said, said


def test_without_install_the_fixture_says_what_to_set(sdk_python: str, tmp_path: Path) -> None:
    said = run_tests(sdk_python, tmp_path, "def test_it(tasks): ...", ini="")
    assert "aec_install = true" in said, said
    assert "1 error" in said, said


@pytest.mark.parametrize("fixture", ["tasks", "taskqueue_stub"])
def test_the_testbed_may_come_before_or_after_the_fixture(
    fixture: str, sdk_python: str, tmp_path: Path
) -> None:
    said = run_tests(
        sdk_python,
        tmp_path,
        f"""
        from google.appengine.api import taskqueue
        from google.appengine.ext import testbed

        @pytest.fixture
        def later({fixture}):
            bed = testbed.Testbed()
            bed.activate()
            yield {fixture}
            bed.deactivate()

        def test_it(later):
            taskqueue.add(url="/x", name="n")
        """,
    )
    assert "1 passed" in said, said
