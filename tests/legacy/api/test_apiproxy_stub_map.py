"""Stubs are registered and found, as old tests do by hand."""

from __future__ import annotations

import pytest
from google.appengine.api import apiproxy_stub_map


class Echo:
    def MakeSyncCall(self, *call: object) -> object:
        return call


def test_a_registered_stub_is_found() -> None:
    stubs = apiproxy_stub_map.APIProxyStubMap()
    assert stubs.GetStub("taskqueue") is None
    stub = Echo()
    stubs.RegisterStub("taskqueue", stub)
    assert stubs.GetStub("taskqueue") is stub


def test_a_service_is_registered_once_but_may_be_replaced() -> None:
    stubs = apiproxy_stub_map.APIProxyStubMap()
    stubs.RegisterStub("taskqueue", Echo())
    with pytest.raises(AssertionError, match="taskqueue"):
        stubs.RegisterStub("taskqueue", Echo())
    other = Echo()
    stubs.ReplaceStub("taskqueue", other)
    assert stubs.GetStub("taskqueue") is other


def test_a_default_stub_answers_for_the_others() -> None:
    stub = Echo()
    stubs = apiproxy_stub_map.APIProxyStubMap(stub)
    assert stubs.GetStub("memcache") is stub
    other = Echo()
    stubs.SetDefaultStub(other)
    assert stubs.GetStub("memcache") is other


def test_a_call_reaches_the_stub() -> None:
    stubs = apiproxy_stub_map.GetDefaultAPIProxy()
    stubs.RegisterStub("memcache", Echo())
    assert stubs.MakeSyncCall("memcache", "Get", 1, 2) == ("memcache", "Get", 1, 2)


def test_a_service_that_is_not_here_points_to_googles_sdk() -> None:
    with pytest.raises(AssertionError, match="appengine-python-standard"):
        apiproxy_stub_map.MakeSyncCall("images", "Resize", None, None)
