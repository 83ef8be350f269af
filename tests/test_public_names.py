"""What a user imports from the package itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

import appengine_compat


@pytest.mark.parametrize("name", appengine_compat.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(appengine_compat, name)
    assert name in dir(appengine_compat)


@pytest.mark.parametrize("name", ["asgi", "logging"])
def test_modules_that_pages_name_need_no_import_of_their_own(name: str) -> None:
    program = f"import appengine_compat; print(appengine_compat.{name}.__name__)"
    shown = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert shown == f"appengine_compat.{name}\n"


def test_another_name_is_an_attribute_that_is_missing() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'instal'"):
        appengine_compat.instal  # noqa: B018
