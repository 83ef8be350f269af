"""What the doors listen on: addresses of either kind, and why one cannot be listened on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from appengine_compat.errors import ConfigError
from appengine_compat.local.fronts import listening

PATIENCE_SECONDS = 20.0


class Bind(Protocol):
    def __call__(self, host: str, port: int = 0) -> socket.socket: ...


@pytest.fixture
def bind() -> Iterator[Bind]:
    with ExitStack() as opened:

        def bind(host: str, port: int = 0) -> socket.socket:
            return opened.enter_context(listening.bind(host, port, "gRPC", "--grpc-port"))

        yield bind


def refusal(host: str, port: int = 0) -> str:
    """Expect that nothing can listen there, and return what is said."""
    with pytest.raises(ConfigError) as caught:
        listening.bind(host, port, "gRPC", "--grpc-port").close()
    assert caught.value.setting == "--grpc-port"
    return str(caught.value)


def is_served(bound: socket.socket, host: str) -> bool:
    with socket.create_connection((host, bound.getsockname()[1]), PATIENCE_SECONDS) as client:
        accepted, _ = bound.accept()
        with accepted:
            return accepted.getpeername()[1] == client.getsockname()[1]


def needs_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this system has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_ipv4_is_listened_on_by_its_address_and_as_localhost(bind: Bind, host: str) -> None:
    bound = bind(host)
    assert bound.family == socket.AF_INET
    assert is_served(bound, "127.0.0.1")


def test_localhost_is_ipv4_also_where_the_system_names_ipv6_first(bind, monkeypatch) -> None:
    def both(host: str, port: int, **options: int) -> list[tuple]:
        assert host == "localhost"
        kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [
            (socket.AF_INET6, *kind, ("::1", port, 0, 0)),
            (socket.AF_INET, *kind, ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert bind("localhost").getsockname()[0] == "127.0.0.1"


def test_all_addresses_of_ipv6_are_those_of_ipv4_too(bind) -> None:
    needs_ipv6()
    bound = bind("::")
    assert is_served(bound, "::1")
    if socket.has_dualstack_ipv6():
        assert is_served(bound, "127.0.0.1")


def test_one_address_of_ipv6_is_that_alone(bind) -> None:
    needs_ipv6()
    bound = bind("::1")
    assert is_served(bound, "::1")
    with pytest.raises(OSError, match="refused"):
        is_served(bound, "127.0.0.1")


def test_a_port_that_is_taken(bind) -> None:
    port = bind("127.0.0.1").getsockname()[1]
    assert refusal("127.0.0.1", port) == (
        f"Cloud Tasks' gRPC cannot be served on 127.0.0.1:{port}: another program listens there. "
        "End that program, or choose another port."
    )


def test_a_port_that_is_taken_of_ipv6_is_shown_in_brackets(bind) -> None:
    needs_ipv6()
    port = bind("::1").getsockname()[1]
    assert f"on [::1]:{port}: another program" in refusal("::1", port)


def test_an_address_of_another_machine() -> None:
    said = refusal("192.0.2.1")  # kept for documentation, so nobody's
    assert "on 192.0.2.1:0: " in said
    assert "It is no address of this machine: choose another." in said
    assert "while attempting" not in said


def test_a_host_that_nobody_knows() -> None:
    said = refusal("nowhere.invalid", 8123)
    assert "on nowhere.invalid:8123: " in said
    assert "It is no address of this machine: choose another." in said


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_what_no_host_can_be_called(host: str) -> None:
    assert f"on {host}:0: no host can have that name." in refusal(host)


@pytest.mark.parametrize("port", [-1, 65_536, 65_536 + 8123])
def test_a_port_that_there_is_not_is_no_other_port(port: int) -> None:
    assert refusal("127.0.0.1", port) == (
        f"Cloud Tasks' gRPC cannot be served on 127.0.0.1:{port}: ports go from 0 to 65535."
    )


def test_a_port_that_only_the_system_may_use(monkeypatch) -> None:
    def forbidden(*args: object, **options: object) -> socket.socket:
        raise PermissionError(13, "Permission denied (while attempting to bind on address)")

    # Who runs the tests may be allowed to.
    monkeypatch.setattr(socket, "create_server", forbidden)
    assert refusal("127.0.0.1", 80).endswith(
        "127.0.0.1:80: Permission denied. Choose a port above 1023."
    )


def test_when_no_file_is_left_the_address_is_not_to_blame(monkeypatch) -> None:
    def none_left(*args: object, **options: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "create_server", none_left)
    assert refusal("127.0.0.1", 8123).endswith("127.0.0.1:8123: Too many open files.")


@pytest.mark.parametrize(
    ("files", "most"), [(100, 64), (1024, 384), (20_000, 8000), (1_000_000, 8000)]
)
def test_two_doors_share_the_files_that_a_process_may_open(monkeypatch, files, most) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    assert listening.most_connections() == most


def test_without_a_limit_of_files_connections_have_one(monkeypatch) -> None:
    resource = pytest.importorskip("resource")
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda which: (unlimited, unlimited))
    assert listening.most_connections() == 8000
