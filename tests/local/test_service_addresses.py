"""Which address takes the task of a service, a version, an instance."""

from __future__ import annotations

import pytest

from appengine_compat.errors import ConfigError
from appengine_compat.local.service_addresses import ServiceAddresses

TABLE = {
    "default": "http://localhost:1",
    "worker": "http://localhost:2/",
    "v2.worker": "https://v2.example.com",
    "i0.v2.worker": "http://localhost:4",
    "v9.batch": "http://localhost:5",
    "v8.batch": "http://localhost:6",
}


@pytest.mark.parametrize(
    ("routing", "address"),
    [
        (("worker",), "http://localhost:2"),
        (("worker", "v1"), "http://localhost:2"),
        (("worker", "v2"), "https://v2.example.com"),
        (("worker", "v2", "i0"), "http://localhost:4"),
        (("worker", "v2", "i1"), "https://v2.example.com"),
        (("worker", "", "i0"), "http://localhost:2"),
        (("batch",), "http://localhost:5"),
        (("batch", "v8"), "http://localhost:6"),
        (("batch", "v7"), "http://localhost:5"),
        (("unknown",), None),
    ],
)
def test_the_most_exact_entry_holds(routing, address):
    assert ServiceAddresses(TABLE).find(*routing) == address


def test_one_address_may_take_all_other_services():
    addresses = ServiceAddresses({"worker": "http://localhost:2"}, "http://localhost:9")
    assert addresses.services() is None
    assert addresses.find("worker") == "http://localhost:2"
    assert addresses.find("unknown", "v1") == "http://localhost:9"


def test_the_services_are_told_without_their_versions():
    assert ServiceAddresses(TABLE).services() == {"default", "worker", "batch"}
    assert ServiceAddresses().services() == frozenset()


@pytest.mark.parametrize(
    "address",
    ["", "localhost:1", "ftp://h", "http://", "http://h/path", "http://h?q", "http://u:p@h",
     "http://h:x", "http://h:99999", "http://h:0", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_words(address):
    with pytest.raises(ConfigError, match=r"is no address for worker: write http://HOST:PORT"):
        ServiceAddresses({"worker": address})
    with pytest.raises(ConfigError, match="for every other service"):
        ServiceAddresses(otherwise=address)
