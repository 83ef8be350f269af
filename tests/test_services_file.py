"""``[services]`` of appengine-compat.toml: where each service is, in a file beside queue.yaml."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import appengine_compat
from appengine_compat import services_file, settings
from appengine_compat.errors import ConfigError

FILE = """\
# Where the services are.

[services]
default = "http://localhost:8081"
py3-api = 'http://localhost:8083/'   # a slash at the end is none of the address
"v2.worker"="https://worker.example.com/app"
old = "appengine"
"""
TABLE = {
    "default": "http://localhost:8081",
    "py3-api": "http://localhost:8083",
    "v2.worker": "https://worker.example.com/app",
    "old": "appengine",
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("APPENGINE_COMPAT_TARGETS", raising=False)
    monkeypatch.delenv("APPENGINE_COMPAT_QUEUE_YAML", raising=False)
    yield
    appengine_compat.configure(targets=None, queue_yaml=None)


class TestReading:
    def test_a_file_says_where_each_service_is(self) -> None:
        assert services_file.parse(FILE) == TABLE

    def test_lines_may_end_as_on_windows(self) -> None:
        assert services_file.parse(FILE.replace("\n", "\r\n")) == TABLE

    @pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n", "[services]", "[ services ]"])
    def test_nothing_is_no_fault(self, text: str) -> None:
        assert services_file.parse(text) == {}

    @pytest.mark.parametrize(
        ("text", "place", "said"),
        [
            ('a = "http://h"', "1:1", r"stands before the line \[services\]"),
            ("services = {}", "1:1", r"begins with the line \[services\]"),
            ('services.a = "http://h"', "1:1", r"begins with the line \[services\]"),
            ('[servces]\na = "http://h"', "1:1", r"no table \[servces\] here, only \[services\]"),
            ("[services]\n[queues]", "2:1", r"no table \[queues\]"),
            ("[services]\n  [services]", "2:3", "a second time"),
            ("[[services]]", "1:1", r"begins with the line \[services\]"),
            ("[services]\na = http://h", "2:1", "its address in quotes"),
            ('[services]\na = ["http://h"]', "2:1", "its address in quotes"),
            ("[services]\na = 8081", "2:1", "its address in quotes"),
            ('[services]\na = """http://h"""', "2:1", "its address in quotes"),
            ('[services]\na = "http://h" b', "2:1", "its address in quotes"),
            ('[services]\nv2.worker = "http://h"', "2:1", '"v2.worker" = …'),
            ('[services]\na = "localhost:8081"', "2:5", "'localhost:8081' is no address"),
            ('[services]\nWorker = "http://h"', "2:1", "'Worker' is no name for a service"),
            ('[services]\n"" = "http://h"', "2:1", "'' is no name for a service"),
            ('[services]\na="http://h"\na="http://i"', "3:1", "'a' is given twice"),
        ],
    )
    def test_anything_else_is_refused_with_its_place(
        self, text: str, place: str, said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            services_file.parse(text, "x/appengine-compat.toml")
        assert str(caught.value).startswith(f"x/appengine-compat.toml:{place}: ")
        assert caught.value.setting == "APPENGINE_COMPAT_TARGETS"

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="Python reads TOML since 3.11")
    @given(
        st.lists(
            st.one_of(
                st.sampled_from([*FILE.splitlines(), "", "\r", "\x7f", '"a" = "http://\t"']),
                st.from_regex(
                    r"\A[ \t]*([a-c]|\"[a-c.]{1,3}\"|'b')[ \t]?=[ \t]?"
                    r"(\"https?://[^\n]{0,8}\"|'https?://[^\n]{0,8}')[ \t]*(#[^\n]{0,4})?\Z"
                ),
                st.text(max_size=12),
            ),
            max_size=6,
        )
    )
    def test_whatever_is_taken_any_reader_of_toml_takes_as_the_same(self, lines: list[str]) -> None:
        import tomllib

        text = "\n".join(["[services]", *lines])
        try:
            table = services_file.parse(text)
        except ConfigError:
            return
        theirs = tomllib.loads(text).get("services", {})
        assert table == {
            service: address.strip().rstrip("/") for service, address in theirs.items()
        }


class TestFinding:
    def test_it_is_the_table_where_the_setting_is_not_set(self) -> None:
        assert settings.TARGETS.get() == {}
        Path("appengine-compat.toml").write_text(FILE)
        assert settings.TARGETS.get() == TABLE
        assert not settings.TARGETS.is_set
        assert settings.targets_place() == "[services] of appengine-compat.toml"

    def test_a_changed_file_is_read_anew(self) -> None:
        file = Path("appengine-compat.toml")
        file.write_text(FILE)
        assert settings.TARGETS.get() == TABLE
        file.write_text('[services]\nonly = "appengine"\n')
        assert settings.TARGETS.get() == {"only": "appengine"}
        file.unlink()
        assert settings.TARGETS.get() == {}

    def test_it_stands_beside_queue_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "appengine-compat.toml").write_text(FILE)
        assert settings.TARGETS.get() == {}
        appengine_compat.configure(queue_yaml="config/queue.yaml")
        assert settings.TARGETS.get() == TABLE
        assert settings.targets_place() == "[services] of config/appengine-compat.toml"

    def test_what_is_set_stands_instead_of_the_whole_file(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("appengine-compat.toml").write_text("[services]\nbroken\n")
        monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", "https://abc.ngrok.app")
        assert settings.TARGETS.get() == {"": "https://abc.ngrok.app"}
        assert settings.targets_place() == "APPENGINE_COMPAT_TARGETS"
        appengine_compat.configure(targets="worker=http://localhost:1")
        assert settings.TARGETS.get() == {"worker": "http://localhost:1"}

    def test_a_broken_file_is_told_when_settings_are_checked(self) -> None:
        Path("appengine-compat.toml").write_text("[services]\nbroken\n")
        with pytest.raises(ConfigError, match=r"^appengine-compat\.toml:2:1: "):
            settings.check()

    def test_a_file_that_cannot_be_read_is_told(self) -> None:
        Path("appengine-compat.toml").write_bytes(b'[services]\na = "http://\xff"\n')
        with pytest.raises(ConfigError, match=r"cannot be read .* in UTF-8"):
            settings.TARGETS.get()
        Path("appengine-compat.toml").unlink()
        Path("appengine-compat.toml").mkdir()
        with pytest.raises(ConfigError, match="cannot be read"):
            settings.TARGETS.get()
