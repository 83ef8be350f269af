"""What a user imports from the package itself."""

from __future__ import annotations

import pytest

import appengine_compat


@pytest.mark.parametrize("name", appengine_compat.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(appengine_compat, name)
    assert name in dir(appengine_compat)


def test_another_name_is_an_attribute_that_is_missing() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'instal'"):
        appengine_compat.instal  # noqa: B018
