"""Ports: consecutive or free ones, and what is said when one cannot be had."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from appengine_compat.cli import serving
from appengine_compat.cli.command import CommandError


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of the loopback that something else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def pair() -> int:
    """The first of two consecutive ports that are free."""
    for _ in range(50):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    pytest.fail("no two consecutive ports are free")


def test_zero_takes_a_free_port_for_each_service() -> None:
    sockets = serving.bind("127.0.0.1", 0, ["default", "worker"])

    addresses = [serving.address(bound) for bound in sockets]
    serving.close(sockets)

    assert len(set(addresses)) == 2
    assert all(address.startswith("http://localhost:") for address in addresses)


def test_ports_are_consecutive_in_the_order_of_the_services(pair: int) -> None:
    sockets = serving.bind("127.0.0.1", pair, ["default", "worker"])

    ports = [bound.getsockname()[1] for bound in sockets]
    serving.close(sockets)

    assert ports == [pair, pair + 1]


def test_a_busy_port_is_named_with_its_service(taken: int) -> None:
    with pytest.raises(CommandError) as caught:
        serving.bind("127.0.0.1", taken, ["default"])

    assert str(caught.value) == (
        f"Port {taken} on 127.0.0.1, for service 'default', is in use: "
        "end what uses it, or choose other ports with --port."
    )


def test_the_ports_before_a_busy_one_are_given_back(pair: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", pair + 1))
        other.listen()
        with pytest.raises(CommandError, match="for service 'worker'"):
            serving.bind("127.0.0.1", pair, ["default", "worker"])

    serving.close(serving.bind("127.0.0.1", pair, ["default"]))


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("no.such.host.invalid", 0, "--host no.such.host.invalid is not known here"),
        ("192.0.2.1", 0, "--host 192.0.2.1 is no address of this machine."),
        ("127.0.0.1", 65535, "2 services from port 65535 need ports above 65535"),
    ],
)
def test_what_cannot_be_listened_on_is_refused(host: str, port: int, said: str) -> None:
    with pytest.raises(CommandError) as caught:
        serving.bind(host, port, ["default", "worker"])

    assert said in str(caught.value)


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_only_the_loopback_is_private(host: str, local: bool) -> None:
    sockets = serving.bind(host, 0, ["default"])

    is_loopback = serving.is_loopback(sockets[0])
    serving.close(sockets)

    assert is_loopback is local
