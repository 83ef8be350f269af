"""What the wheel and the sdist hold."""

from __future__ import annotations

import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def paths(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path, paths: list[str]) -> dict[str, list[str]]:
    name = next(path for path in paths if path.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        message = Parser().parsestr(archive.read(name).decode())
    return {key: message.get_all(key, []) for key in message}


def test_the_wheel_has_one_file_under_google(paths: list[str]) -> None:
    assert [path for path in paths if path.startswith("google/")] == ["google/appengine.py"]


def test_the_signpost_is_the_one_of_the_tree(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.read("google/appengine.py")
    assert shipped == (checkout / "appengine_compat" / "_google" / "appengine.py").read_bytes()


def test_the_wheel_has_every_file_of_the_package(paths: list[str], checkout: Path) -> None:
    package = checkout / "appengine_compat"
    wanted = {
        f"appengine_compat/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and path.relative_to(package).parts[0] != "_google"
    }
    # Building an editable install from the checkout leaves caches behind.
    wanted = {path for path in wanted if "__pycache__" not in path}
    assert wanted <= set(paths), f"missing: {sorted(wanted - set(paths))}"
    assert {"appengine_compat/py.typed", "appengine_compat/local/schema.sql"} <= wanted


def test_the_wheel_has_nothing_else(paths: list[str]) -> None:
    tops = {path.partition("/")[0] for path in paths}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"appengine_compat", "google"}


def test_the_metadata_says_what_users_choose_by(metadata: dict[str, list[str]]) -> None:
    assert metadata["Name"] == ["appengine-compat"]
    assert metadata["License-Expression"] == ["Apache-2.0"]
    assert metadata["Requires-Python"] == [">=3.10"]
    assert set(metadata["Provides-Extra"]) >= {"dev", "test"}
    for minor in range(10, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in metadata["Classifier"]


def test_the_core_depends_on_three_distributions(metadata: dict[str, list[str]]) -> None:
    core = [line for line in metadata["Requires-Dist"] if "extra ==" not in line]
    assert sorted(line.partition(">=")[0].strip() for line in core) == [
        "google-cloud-logging",
        "google-cloud-tasks",
        "webob",
    ]


def test_the_sdist_has_what_the_wheel_is_built_from(sdist: Path, paths: list[str]) -> None:
    """The wheel of these tests was built from this sdist; nothing may have been lost between."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.cfg", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert "appengine_compat/_google/appengine.py" in names
    assert {path for path in paths if path.startswith("appengine_compat/")} <= names
