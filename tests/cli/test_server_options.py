"""The options that server and dev share, read from a command line."""

from __future__ import annotations

import argparse
import contextlib
import socket

import pytest

from appengine_compat import settings
from appengine_compat.cli import server_options
from appengine_compat.cli.command import CommandError
from appengine_compat.errors import ConfigError
from appengine_compat.local.doors import Doors, Ports
from appengine_compat.local.tombstones import Windows

PARENT = "projects/p/locations/l"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    server_options.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def _settings_as_before():
    yield
    settings.configure(db=None, queue_yaml=None, project=None, location=None)


class TestPorts:
    def test_the_usual_ones(self):
        assert server_options.ports(parsed()) == Ports(8123, 8124, 8000)

    def test_0_is_none_and_free_is_any(self):
        options = parsed("--grpc-port", "0", "--rest-port", "free", "--dashboard-port", "81")

        assert server_options.ports(options) == Ports(None, 0, 81)

    ONLY_REST = ("--grpc-port", "0", "--dashboard-port", "0")

    def test_what_nobody_asked_for_is_left_to_another_program(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            monkeypatch.setitem(server_options.DEFAULT_PORTS, "rest", taken)

            ports, told = server_options.doors_in_reach(parsed(*self.ONLY_REST), lambda at: at)

        assert ports == Ports(None, None, None)
        assert told == [f"Port {taken} is in use: no rest here (--rest-port takes another)."]

    def test_also_when_it_comes_at_the_same_moment(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        monkeypatch.setitem(server_options.DEFAULT_PORTS, "rest", port)
        tried = []

        def open_at(ports):
            tried.append(ports.rest)
            if ports.rest is not None:
                faster.enter_context(socket.create_server(("127.0.0.1", port)))
                raise ConfigError("it cannot be listened on")
            return ports

        with contextlib.ExitStack() as faster:
            _, told = server_options.doors_in_reach(parsed(*self.ONLY_REST), open_at)

        assert tried == [port, None]
        assert told == [f"Port {port} is in use: no rest here (--rest-port takes another)."]

    def test_what_was_asked_for_is_not(self):
        def open_at(ports):
            raise ConfigError(f"no {ports.rest} here")

        with pytest.raises(ConfigError, match="no 81 here"):
            server_options.doors_in_reach(
                parsed("--grpc-port", "0", "--rest-port", "81", "--dashboard-port", "0"), open_at
            )


class TestQueues:
    def test_an_id_belongs_to_the_own_location(self):
        found = server_options.queues(parsed("--queue", "a", "--queue", "a"), PARENT)

        assert [queue.name for queue in found] == [f"{PARENT}/queues/a"]
        assert found[0].rate_limits.max_dispatches_per_second == 500

    def test_a_name_that_is_none_is_refused(self):
        with pytest.raises(CommandError, match="letters, digits and hyphens"):
            server_options.queues(parsed("--queue", "a_b"), PARENT)


class TestConfigured:
    def test_options_win_over_the_environment(self, monkeypatch):
        monkeypatch.setenv("APPENGINE_COMPAT_PROJECT", "of-environment")
        monkeypatch.setenv("APPENGINE_COMPAT_LOCATION", "there")

        server_options.configure(parsed("--project", "of-option"))

        assert server_options.parent() == "projects/of-option/locations/there"

    def test_memory_has_no_path(self):
        server_options.configure(parsed("--ephemeral"))

        assert settings.DB.get() == ""
        assert server_options.shown_database() == "memory, until the end"

    def test_the_database_is_shown_from_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        server_options.configure(parsed("--db", "tasks.db"))

        assert settings.DB.get() == str(tmp_path / "tasks.db")
        assert server_options.shown_database() == "tasks.db"


class TestTargets:
    def test_services_versions_and_the_rest(self):
        found = server_options.service_addresses(
            parsed(
                "--service", "web=http://localhost:1", "--service", "v2.web=http://localhost:2",
                "--app-engine-target", "http://localhost:3",
            )
        )  # fmt: skip

        assert found.find("web") == "http://localhost:1"
        assert found.find("web", "v2") == "http://localhost:2"
        assert found.find("other") == "http://localhost:3"

    @pytest.mark.parametrize("word", ["web", "=http://x", "Web Page=http://x", "a.b.c.d=http://x"])
    def test_a_service_without_name_or_address_is_refused(self, word):
        with pytest.raises(CommandError, match="NAME=http://HOST:PORT"):
            server_options.service_addresses(parsed("--service", word))

    def test_an_address_that_is_none_is_refused(self):
        with pytest.raises(ConfigError, match="is no address"):
            server_options.service_addresses(parsed("--service", "web=localhost"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), ("9d", 777600)],
)
def test_a_window_is_a_number_and_a_unit(text, seconds):
    windows = server_options.windows(parsed("--task-name-window", text), Windows())

    assert windows.task_seconds == seconds
    assert windows.automatic_task_seconds == min(seconds, 3600)
    assert windows.queue_seconds == Windows().queue_seconds


def test_without_a_window_production_s_holds():
    assert server_options.windows(parsed(), Windows()) == Windows()


@pytest.mark.parametrize("word", ["tasks:8124", "ftp://tasks", "http://"])
def test_an_issuer_is_an_address(word, capsys):
    with pytest.raises(SystemExit):
        parsed("--oidc-issuer", word)

    assert f"{word!r} is no address such as http://tasks:8124" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "issuer"),
    [((), "http://localhost:81"), (("--oidc-issuer", "http://tasks:8124"), "http://tasks:8124")],
)
def test_handlers_are_told_who_issues_tokens(words, issuer):
    given = parsed(*words).oidc_issuer

    variables = server_options.environment("", "http://localhost:81", PARENT, given)

    assert variables["APPENGINE_COMPAT_OIDC_ISSUER"] == issuer


def test_the_lines_for_a_shell_are_quoted():
    lines = server_options.exports({"NAME": "it's $HOME"})

    assert lines == ["export NAME='it'\"'\"'s $HOME'"]


def test_a_server_without_doors_has_no_addresses():
    assert server_options.addresses(Doors("127.0.0.1")) == ""
