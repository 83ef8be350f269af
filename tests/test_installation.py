"""``install()`` beside a folder that stands where Google's SDK would.

The same with the real SDK, from wheels, is in tests/packaging/; this runs everywhere, at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

INSTALL = "import appengine_compat; appengine_compat.install()"
STAND_IN = {
    "google/appengine/__init__.py": "",
    "google/appengine/api/__init__.py": "def wrap_wsgi_app(app): return app",
    "google/appengine/api/memcache.py": "",
    "google/appengine/api/namespace_manager.py": "",
    "google/appengine/api/taskqueue/__init__.py": "",
    "google/appengine/api/taskqueue/taskqueue.py": "",
    "google/appengine/api/taskqueue/taskqueue_service_bytes_pb2.py": "",
    "google/appengine/ext/__init__.py": "",
    "google/appengine/ext/deferred/__init__.py": "",
    "google/appengine/ext/deferred/deferred.py": "",
    "google/appengine/ext/ndb.py": "from google.appengine.api import namespace_manager",
    "google/appengine/ext/testbed.py": "",
    "google/appengine/runtime/__init__.py": "",
    "google/appengine/runtime/apiproxy_errors.py": "class Error(Exception): pass",
    "google/appengine/runtime/context/__init__.py": "",
}
OURS = [
    "google.appengine.api",
    "google.appengine.api.taskqueue",
    "google.appengine.api.taskqueue.taskqueue",
    "google.appengine.ext.deferred",
    "google.appengine.ext.deferred.deferred",
]
THEIRS = [
    "google.appengine",
    "google.appengine.api.memcache",
    "google.appengine.api.namespace_manager",
    "google.appengine.api.taskqueue.taskqueue_service_bytes_pb2",
    "google.appengine.ext",
    "google.appengine.ext.ndb",
    "google.appengine.ext.testbed",
]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sdk(tmp_path: Path) -> Path:
    folder = tmp_path / "sdk"
    for name, text in STAND_IN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


@pytest.fixture
def python(sdk: Path) -> Run:
    """Runs lines in a fresh interpreter with the stand-in on its path."""

    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        program = "\n".join([f"import sys; sys.path.insert(0, {str(sdk)!r})", *lines])
        return subprocess.run(
            [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
        )

    return run


def print_files(names: list[str]) -> str:
    return (
        "import importlib, json; "
        f"print(json.dumps({{n: importlib.import_module(n).__file__ for n in {names!r}}}))"
    )


def files(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def from_the_sdk(found: dict[str, str], sdk: Path) -> set[str]:
    return {name for name, file in found.items() if Path(file).is_relative_to(sdk)}


def test_without_install_the_sdk_wins(python: Run, sdk: Path) -> None:
    found = files(python(print_files(OURS)))
    assert from_the_sdk(found, sdk) == set(OURS)


def test_install_takes_deferred_and_taskqueue_and_leaves_the_rest(python: Run, sdk: Path) -> None:
    found = files(python(INSTALL, print_files(OURS + THEIRS)))
    assert from_the_sdk(found, sdk) == set(THEIRS)


def test_what_is_imported_first_makes_no_difference(python: Run, sdk: Path) -> None:
    found = files(python(INSTALL, print_files([*reversed(THEIRS), *reversed(OURS)])))
    assert from_the_sdk(found, sdk) == set(THEIRS)


def test_wrap_wsgi_app_is_ours_from_either_import(python: Run) -> None:
    done = python(
        INSTALL,
        "import google.appengine.api",
        "from google.appengine.api import wrap_wsgi_app",
        "assert google.appengine.api.wrap_wsgi_app is wrap_wsgi_app",
        "print(wrap_wsgi_app.__code__.co_filename)",
    )
    assert "appengine_compat" in done.stdout, done.stderr


def test_a_second_install_does_nothing_even_after_imports(python: Run) -> None:
    done = python(
        INSTALL,
        "finders = list(sys.meta_path)",
        "from google.appengine.ext import deferred, ndb",
        INSTALL,
        "assert sys.meta_path == finders",
        "assert appengine_compat.installation.is_installed()",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("early", "named"),
    [
        (
            "google.appengine.ext.deferred.deferred",
            "google.appengine.ext.deferred, google.appengine.ext.deferred.deferred",
        ),
        (
            "google.appengine.api.taskqueue",
            "google.appengine.api, google.appengine.api.taskqueue",
        ),
        ("google.appengine.ext.ndb", "google.appengine.api"),
    ],
)
def test_a_late_install_names_what_is_imported_and_changes_nothing(
    python: Run, early: str, named: str
) -> None:
    done = python(
        f"import {early}",
        "finders = list(sys.meta_path)",
        "from appengine_compat import install",
        "from appengine_compat.errors import NamespaceError",
        "try: install()",
        "except NamespaceError as error: print(error)",
        "assert sys.meta_path == finders",
    )
    assert done.stdout.startswith("appengine_compat.install() came too late: "), done.stderr
    assert f"imported already: {named}. Call install() before" in done.stdout


def test_parts_of_the_sdk_that_hold_nothing_of_ours_may_come_first(python: Run) -> None:
    done = python("import google.appengine.ext.testbed", INSTALL, print_files(OURS))
    assert done.returncode == 0, done.stderr


def test_sources_tells_who_serves_what_and_imports_nothing(python: Run, sdk: Path) -> None:
    tell = (
        "import json; from appengine_compat.installation import sources; "
        "print(json.dumps(sources())); assert 'google.appengine' not in sys.modules"
    )
    before, after = files(python(tell)), files(python(INSTALL, tell))
    assert set(OURS) <= from_the_sdk(before, sdk)
    assert not from_the_sdk(after, sdk).intersection(OURS)
    assert "google.appengine" in from_the_sdk(after, sdk)


class TestWithoutTheSdk:
    @pytest.mark.parametrize("before", ["", "from google.appengine.ext import deferred"])
    def test_install_does_nothing(self, before: str) -> None:
        program = (
            f"import sys; finders = list(sys.meta_path)\n{before}\n{INSTALL}\n"
            "assert sys.meta_path == finders\n"
            "assert not appengine_compat.installation.is_installed()\n"
            "from google.appengine.ext.deferred import deferred\n"
            "assert deferred.__name__ == 'google.appengine.ext.deferred.deferred'"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "from google.appengine.ext import ndb",
        "from google.appengine.ext import db",
        "from google.appengine.api import memcache",
        "from google.appengine.api import users",
    ],
)
def test_without_the_sdk_its_modules_are_said_to_be_missing(statement: str) -> None:
    with pytest.raises(ImportError, match="pip install appengine-python-standard") as raised:
        exec(statement)
    assert raised.value.name is not None
    assert raised.value.name.endswith(statement.rpartition(" ")[2])


@pytest.mark.parametrize(
    ("statement", "instead"),
    [
        ("from google.appengine.ext import webapp", "pip install webapp2"),
        ("from google.appengine.api import logservice", "google-cloud-logging"),
    ],
)
def test_what_was_python_2s_alone_is_not_looked_for_in_the_sdk(
    statement: str, instead: str
) -> None:
    with pytest.raises(ImportError, match=instead) as raised:
        exec(statement)
    assert "appengine-python-standard" not in str(raised.value)


def test_other_names_are_attributes_that_are_missing() -> None:
    import google.appengine.api
    import google.appengine.ext

    for package in (google.appengine.api, google.appengine.ext):
        assert not hasattr(package, "no_such_module")
