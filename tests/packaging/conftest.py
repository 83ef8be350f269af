"""Wheels and throw-away environments, made once for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = "appengine-python-standard==3.1.0"


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, with nothing of this one's."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def pip(self, *arguments: str) -> None:
        run(self.python, "-m", "pip", *arguments)

    def install(self, *what: str) -> None:
        # What is compiled here is never run twice.
        self.pip("install", "--quiet", "--no-compile", *what)

    def uninstall(self, what: str) -> None:
        self.pip("uninstall", "--quiet", "--yes", what)

    def run(self, program: str) -> str:
        """Run a program that cannot see this checkout; return what it printed."""
        return run(self.python, "-I", "-c", program)

    def fails(self, program: str) -> str:
        """Run a program that must fail; return its last line of words."""
        done = subprocess.run(
            [self.python, "-I", "-c", program],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
        )
        assert done.returncode != 0, done.stdout
        return done.stderr.strip().splitlines()[-1]

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))


def run(*command: str | Path, cwd: Path | None = None) -> str:
    outside = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV_"))
    }
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=outside, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no package can be had; in CI that is a failure."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1",
         "--dest", tmp_path_factory.mktemp("download"), "webob"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if asked.returncode != 0:
        words = f"packages cannot be downloaded here: {asked.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(
        ROOT / "appengine_compat",
        folder / "appengine_compat",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def distributions(checkout: Path, index: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, checkout, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    return next(distributions.glob("*.whl"))


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> Path:
    return next(distributions.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Make an environment: a new one, or a copy of another, which is much faster."""

    def make(name: str, of: Environment | None = None) -> Environment:
        folder = tmp_path_factory.mktemp(name)
        if of is None:
            run(sys.executable, "-m", "venv", folder)
        else:
            # Programs are run by the interpreter's path only, so scripts need no rewriting.
            shutil.copytree(of.folder, folder, symlinks=True, dirs_exist_ok=True)
        return Environment(folder)

    return make


@pytest.fixture(scope="session")
def alone(environments: Callable[..., Environment], wheel: Path) -> Environment:
    """Our wheel with its dependencies, and nothing else."""
    environment = environments("alone")
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="session")
def editable(
    environments: Callable[..., Environment], alone: Environment, checkout: Path
) -> Environment:
    """Our tree, as its developers install it, with pytest."""
    environment = environments("editable", of=alone)
    environment.uninstall("appengine-compat")
    environment.install("--editable", str(checkout), "pytest")
    return environment


@pytest.fixture(scope="session")
def sdk_alone(environments: Callable[..., Environment], index: None) -> Environment:
    """Google's SDK with its dependencies, and nothing of ours."""
    environment = environments("sdk_alone")
    environment.install(SDK)
    return environment


@pytest.fixture(scope="session")
def sdk_first(
    environments: Callable[..., Environment], sdk_alone: Environment, wheel: Path
) -> Environment:
    """Google's SDK, and then our wheel."""
    environment = environments("sdk_first", of=sdk_alone)
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="session")
def ours_first(environments: Callable[..., Environment], alone: Environment) -> Environment:
    """Our wheel, and then Google's SDK."""
    environment = environments("ours_first", of=alone)
    environment.install(SDK)
    return environment


@pytest.fixture(scope="session", params=["sdk_first", "ours_first"])
def beside(request: pytest.FixtureRequest) -> Environment:
    """Both, in either order of installation."""
    environment: Environment = request.getfixturevalue(request.param)
    return environment
