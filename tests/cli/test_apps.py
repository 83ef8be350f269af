"""MODULE:APP: what it names, and what is said when it names nothing that can be served."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appengine_compat.backends import targets
from appengine_compat.cli.apps import AppName, load, parse_names
from appengine_compat.cli.command import CommandError
from appengine_compat.errors import ConfigError

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Work in an empty directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write_module(name: str, source: str) -> None:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


class TestNames:
    def test_the_app_without_a_name_is_the_default_service(self) -> None:
        assert parse_names(["main:app"]) == [AppName("default", "main", "app")]

    def test_several_services_keep_their_order(self) -> None:
        names = parse_names(["main:app", "worker=pkg.worker:make.app"])

        assert names == [
            AppName("default", "main", "app"),
            AppName("worker", "pkg.worker", "make.app"),
        ]

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            ("main", "'main' names no app: write MODULE:APP, such as main:app"),
            ("main:", "names no app"),
            (":app", "names no app"),
            ("main:app()", "names no app"),
            ("worker=", "names no app"),
            ("", "names no app"),
            ("main.py:app", "names a file, not a module: write main:app"),
            ("sub/main.py", "names a file, not a module: write main:app"),
            ("Worker=main:app", "'Worker' (in 'Worker=main:app') is no name for a service"),
            ("=main:app", "is no name for a service"),
            ("a_b=main:app", "is no name for a service"),
            ("a-=main:app", "is no name for a service"),
            (f"{'a' * 64}=main:app", "is no name for a service"),
        ],
    )
    def test_a_malformed_one_is_refused(self, word: str, said: str) -> None:
        with pytest.raises(CommandError) as caught:
            parse_names([word])

        assert said in str(caught.value)

    def test_two_apps_cannot_be_one_service(self) -> None:
        with pytest.raises(CommandError) as caught:
            parse_names(["main:app", "web:app"])

        assert str(caught.value) == (
            "main:app and web:app would both be service 'default': "
            "give one another name, such as worker=web:app."
        )


class TestLoading:
    def test_the_app_comes_from_the_working_directory(self, write: Write) -> None:
        write("shop", "def app(environ, start_response): return [b'shop']")

        app = load(AppName("default", "shop", "app"))

        assert list(app({}, lambda *_: lambda _: None)) == [b"shop"]

    def test_a_module_of_a_package_and_an_attribute_of_an_attribute(self, write: Write) -> None:
        write("pkg/shop", "class made:\n    def app(environ, start_response): return []")

        assert callable(load(AppName("default", "pkg.shop", "made.app")))

    def test_the_module_is_imported_as_its_service(self, write: Write) -> None:
        write(
            "shop",
            """
            from appengine_compat.backends import targets
            imported_as = targets.current_service()
            def app(environ, start_response): return []
            """,
        )

        load(AppName("worker", "shop", "app"))

        assert sys.modules["shop"].imported_as == "worker"
        assert targets.current_service() == "default"

    @pytest.mark.parametrize(
        ("source", "attribute", "said"),
        [
            ("", "app", "Module shop has no 'app'."),
            ("application = len", "aplication", "has no 'aplication'; did you mean application?"),
            ("app = 'text'", "app", "shop:app is a str, not a WSGI application"),
            ("app = None", "app", "shop:app is a NoneType, not a WSGI application"),
            ("def app(): return 1", "app", "does not take (environ, start_response)"),
            ("async def app(s, r, t): pass", "app", "shop:app is an ASGI application"),
            (
                "class A:\n async def __call__(self, s, r, t): pass\napp = A()",
                "app",
                "shop:app is an ASGI application",
            ),
            ("import flaskk", "app", "shop imports 'flaskk', which is not installed (shop.py"),
            ("def app(:", "app", "shop cannot be imported: invalid syntax (shop.py, line 1)"),
            (
                "import os\n1 / 0",
                "app",
                "shop cannot be imported: ZeroDivisionError: division by zero (shop.py, line 2)",
            ),
            ("raise SystemExit(3)", "app", "shop cannot be imported: SystemExit: 3 (shop.py"),
        ],
    )
    def test_what_cannot_be_served_is_refused(
        self, write: Write, source: str, attribute: str, said: str
    ) -> None:
        write("shop", source)

        with pytest.raises(CommandError) as caught:
            load(AppName("default", "shop", attribute))

        assert said in str(caught.value)

    def test_a_module_that_is_not_there_is_named_with_the_place(
        self, write: Write, tmp_path: Path
    ) -> None:
        with pytest.raises(CommandError) as caught:
            load(AppName("default", "nowhere", "app"))

        assert "There is no module 'nowhere' for nowhere:app" in str(caught.value)
        assert str(tmp_path) in str(caught.value)

    def test_flask_is_said_to_come_with_the_extra(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write("shop", "import flask")
        monkeypatch.setitem(sys.modules, "flask", None)

        with pytest.raises(CommandError) as caught:
            load(AppName("default", "shop", "app"))

        assert "pip install 'appengine-compat[dev]'" in str(caught.value)

    def test_our_own_errors_keep_their_words(self, write: Write) -> None:
        write(
            "shop",
            """
            from appengine_compat.errors import ConfigError
            raise ConfigError("the words")
            """,
        )

        with pytest.raises(ConfigError, match=r"\Athe words\Z"):
            load(AppName("default", "shop", "app"))
