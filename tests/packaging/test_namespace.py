"""``google.appengine``, alone and beside Google's SDK, in environments made for the purpose."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appengine_compat import installation

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(600),
]

SERVED = [
    "google.appengine.api",
    "google.appengine.api.labs",
    "google.appengine.api.labs.taskqueue",
    "google.appengine.api.taskqueue",
    "google.appengine.api.taskqueue.taskqueue",
    "google.appengine.api.taskqueue.taskqueue_stub",
    "google.appengine.ext.deferred",
    "google.appengine.ext.deferred.deferred",
    "google.appengine.ext.deferred.handler",
]
LEFT_TO_THE_SDK = [
    "google.appengine",
    "google.appengine.api.apiproxy_stub_map",
    "google.appengine.api.background_thread",
    "google.appengine.api.memcache",
    "google.appengine.api.namespace_manager",
    "google.appengine.api.queueinfo",
    "google.appengine.api.runtime",
    "google.appengine.api.taskqueue.taskqueue_service_bytes_pb2",
    "google.appengine.api.users",
    "google.appengine.ext",
    "google.appengine.ext.db",
    "google.appengine.ext.ndb",
    "google.appengine.ext.testbed",
]

# What the SDK has no module for cannot be its.
IN_THE_SDK = [name for name in SERVED if not name.endswith(".handler") and "labs" not in name]

INSTALL = "import appengine_compat; appengine_compat.install()\n"


def files_of(environment: Any, names: list[str], before: str = "") -> dict[str, str]:
    """Import the modules in a fresh interpreter; return the file of each."""
    program = (
        f"{before}\nimport importlib, json\n"
        f"files = {{name: importlib.import_module(name).__file__ for name in {names!r}}}\n"
        "print(json.dumps(files))"
    )
    files: dict[str, str] = json.loads(environment.run(program).splitlines()[-1])
    return files


def assert_ours(files: dict[str, str]) -> None:
    assert [n for n, file in files.items() if "/appengine_compat/legacy/" not in file] == []


def assert_the_sdks(files: dict[str, str]) -> None:
    wanted = "/site-packages/google/appengine/"
    assert [name for name, file in files.items() if wanted not in file] == []


class TestAlone:
    @pytest.fixture(params=["alone", "editable"])
    def environment(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue(request.param)

    def test_the_modules_are_ours(self, environment: Any) -> None:
        assert_ours(files_of(environment, [*SERVED, "google.appengine.ext.testbed"]))

    def test_names_are_those_that_pickles_carry(self, environment: Any) -> None:
        printed = environment.run(
            "from google.appengine.ext import deferred\n"
            "print(deferred.defer.__module__, deferred.PermanentTaskFailure.__module__)"
        )
        assert set(printed.split()) == {"google.appengine.ext.deferred.deferred"}

    def test_install_has_nothing_to_do_and_does_nothing(self, environment: Any) -> None:
        before = "import sys; finders = list(sys.meta_path)\n"
        after = "\nassert sys.meta_path == finders"
        assert_ours(files_of(environment, SERVED, before + INSTALL + INSTALL + after))

    def test_install_is_harmless_even_when_late(self, environment: Any) -> None:
        environment.run("from google.appengine.ext import deferred\n" + INSTALL)

    def test_wrap_wsgi_app_comes_from_either_import(self, environment: Any) -> None:
        environment.run(
            "import google.appengine.api\n"
            "from google.appengine.api import wrap_wsgi_app\n"
            "assert google.appengine.api.wrap_wsgi_app is wrap_wsgi_app"
        )

    def test_other_google_packages_are_found_as_before(self, environment: Any) -> None:
        environment.run(
            "from google.appengine.ext import deferred\n"
            "import google.cloud.tasks_v2, google.auth, google.protobuf"
        )

    def test_what_is_not_ours_is_said_to_be_missing(self, environment: Any) -> None:
        error = environment.fails("from google.appengine.ext import ndb")
        assert "ImportError" in error
        assert "google.appengine.ext.ndb is a module of Google's SDK" in error
        assert "pip install appengine-python-standard" in error

    def test_sources_tells_the_files_and_imports_none(self, environment: Any) -> None:
        printed = environment.run(
            "import json, sys\n"
            "from appengine_compat.installation import sources\n"
            "found = sources()\n"
            "assert 'google.appengine' not in sys.modules\n"
            "print(json.dumps(found))"
        )
        found = json.loads(printed)
        assert found.pop("google.appengine").endswith("/appengine.py")
        assert_ours(found)
        assert set(SERVED) <= set(found)


class TestConsoleScript:
    def test_it_runs(self, alone: Any) -> None:
        printed = alone.run(
            "import subprocess, sys, os\n"
            "script = os.path.join(os.path.dirname(sys.executable), 'appengine-compat')\n"
            "print(subprocess.run([script, '--help'], capture_output=True, text=True, "
            "check=True).stdout)"
        )
        assert "dev" in printed


class TestPytestPlugin:
    def test_it_is_loaded_where_pytest_is(self, editable: Any, tmp_path: Path) -> None:
        file = tmp_path / "test_it.py"
        file.write_text(
            "import operator\n"
            "from google.appengine.ext import deferred\n"
            "def test_defer(taskqueue_stub):\n"
            "    deferred.defer(operator.add, 1, 2)\n"
            "    (task,) = taskqueue_stub.get_filtered_tasks()\n"
            "    deferred.run(task.payload)\n"
        )
        printed = editable.run(
            f"import pytest; raise SystemExit(pytest.main([{str(file)!r}, '-W', 'error', "
            "'-p', 'no:cacheprovider']))"
        )
        assert "1 passed" in printed


class TestBesideTheSdk:
    def test_no_path_is_in_both_wheels(self, sdk_alone: Any, wheel: Path) -> None:
        record = next(sdk_alone.site_packages.glob("appengine_python_standard-*/RECORD"))
        theirs = {line.partition(",")[0] for line in record.read_text().splitlines()}
        with zipfile.ZipFile(wheel) as archive:
            assert not theirs.intersection(archive.namelist())
        assert "google/appengine/__init__.py" in theirs

    def test_the_sdk_has_what_we_say_it_has(self, sdk_alone: Any) -> None:
        from google.appengine import api, ext

        names = [
            f"{package.__name__}.{name}" for package in (api, ext) for name in package._NOT_OURS
        ]
        printed = sdk_alone.run(
            "import importlib.util\n"
            f"print([name for name in {names!r} if not importlib.util.find_spec(name)])"
        )
        missing = {name.rpartition(".")[2] for name in ast.literal_eval(printed)}
        assert missing == installation._OF_PYTHON_2.keys()

    def test_until_install_is_called_all_is_the_sdks(self, beside: Any) -> None:
        assert_the_sdks(files_of(beside, [*IN_THE_SDK, *LEFT_TO_THE_SDK]))

    def test_install_takes_what_is_ours_and_leaves_the_rest(self, beside: Any) -> None:
        files = files_of(beside, [*SERVED, *LEFT_TO_THE_SDK], INSTALL)
        assert_ours({name: files[name] for name in SERVED})
        assert_the_sdks({name: files[name] for name in LEFT_TO_THE_SDK})

    def test_the_order_of_imports_after_install_does_not_matter(self, beside: Any) -> None:
        files = files_of(beside, [*LEFT_TO_THE_SDK, *SERVED], INSTALL)
        assert_ours({name: files[name] for name in SERVED})

    def test_install_twice_is_fine_at_any_time(self, beside: Any) -> None:
        files_of(
            beside,
            SERVED,
            INSTALL + INSTALL + "from google.appengine.ext import ndb, deferred\n" + INSTALL,
        )

    def test_wrap_wsgi_app_is_ours_from_either_import(self, beside: Any) -> None:
        beside.run(
            INSTALL + "import google.appengine.api\n"
            "from google.appengine.api import wrap_wsgi_app\n"
            "assert google.appengine.api.wrap_wsgi_app is wrap_wsgi_app\n"
            "assert '/appengine_compat/legacy/' in google.appengine.api.__file__"
        )

    def test_the_sdks_testbed_yields_our_stub(self, beside: Any) -> None:
        beside.run(
            INSTALL + "import operator, sys\n"
            "from google.appengine.api.taskqueue import taskqueue_stub\n"
            "from google.appengine.ext import deferred, testbed\n"
            "assert '/site-packages/google/appengine/' in testbed.__file__\n"
            "bed = testbed.Testbed()\n"
            "bed.activate()\n"
            "bed.init_taskqueue_stub()\n"
            "bed.init_memcache_stub()\n"
            "stub = bed.get_stub(testbed.TASKQUEUE_SERVICE_NAME)\n"
            "assert isinstance(stub, taskqueue_stub.TaskQueueServiceStub)\n"
            "assert '/appengine_compat/' in sys.modules[type(stub).__module__].__file__\n"
            "deferred.defer(operator.add, 1, 2)\n"
            "(task,) = stub.get_filtered_tasks()\n"
            "deferred.run(task.payload)\n"
            "bed.deactivate()\n"
        )

    @pytest.mark.parametrize(
        ("early", "named"),
        [
            ("google.appengine.ext.deferred", "google.appengine.ext.deferred.deferred"),
            ("google.appengine.api.taskqueue", "google.appengine.api.taskqueue.taskqueue"),
            ("google.appengine.ext.ndb", "google.appengine.api"),
        ],
    )
    def test_a_late_install_names_what_was_imported(
        self, sdk_first: Any, early: str, named: str
    ) -> None:
        error = sdk_first.fails(f"import {early}\n{INSTALL}")
        assert "NamespaceError: appengine_compat.install() came too late" in error
        assert f" {named}" in error.replace(",", "")

    def test_a_late_install_changes_nothing(self, sdk_first: Any) -> None:
        sdk_first.run(
            "import sys, appengine_compat\n"
            "from google.appengine.ext import deferred\n"
            "finders = list(sys.meta_path)\n"
            "try:\n    appengine_compat.install()\n"
            "except appengine_compat.errors.NamespaceError: pass\n"
            "else: raise AssertionError\n"
            "assert sys.meta_path == finders"
        )

    def test_sources_tells_what_install_changes(self, sdk_first: Any) -> None:
        printed = sdk_first.run(
            "import json, sys\n"
            "from appengine_compat.installation import install, sources\n"
            "before = sources(); install(); after = sources()\n"
            "assert 'google.appengine' not in sys.modules\n"
            "print(json.dumps([before, after]))"
        )
        before, after = json.loads(printed)
        assert_the_sdks(before)
        assert set(IN_THE_SDK) <= set(before)
        assert_ours({name: after[name] for name in SERVED})
        assert_the_sdks({name: file for name, file in after.items() if name not in SERVED})

    @pytest.mark.parametrize("install", [True, False])
    def test_ours_may_lie_before_the_sdk_on_the_path(
        self, alone: Any, sdk_alone: Any, install: bool
    ) -> None:
        """As in a virtual environment that sees the system's packages, with the SDK in those."""
        path = f"import sys; sys.path.append({str(sdk_alone.site_packages)!r})\n"
        assert_ours(files_of(alone, SERVED, path + INSTALL * install))
        if install:
            theirs = ["google.appengine.ext.ndb", "google.appengine.api.memcache"]
            assert_the_sdks(files_of(alone, theirs, path + INSTALL))

    def test_ours_before_the_sdk_and_install_late_is_said_too(
        self, alone: Any, sdk_alone: Any
    ) -> None:
        error = alone.fails(
            f"import sys; sys.path.append({str(sdk_alone.site_packages)!r})\n"
            f"from google.appengine.ext import deferred\n{INSTALL}"
        )
        assert "NamespaceError: appengine_compat.install() came too late" in error


class TestUninstalling:
    def test_ours_leaves_the_sdk_whole(self, beside: Any, environments: Callable[..., Any]) -> None:
        environment = environments("without_ours", of=beside)
        environment.uninstall("appengine-compat")
        assert_the_sdks(files_of(environment, [*IN_THE_SDK, *LEFT_TO_THE_SDK]))
        assert not (environment.site_packages / "google" / "appengine.py").exists()
        assert not (environment.site_packages / "appengine_compat").exists()

    def test_the_sdk_leaves_ours_whole(self, beside: Any, environments: Callable[..., Any]) -> None:
        environment = environments("without_sdk", of=beside)
        environment.uninstall("appengine-python-standard")
        assert_ours(files_of(environment, SERVED, INSTALL))
