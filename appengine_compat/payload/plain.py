"""Pickles that may hold only plain values: reading one can call nothing."""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

from appengine_compat.errors import PayloadError


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise PayloadError(
            f"The pickle names {module}.{name}; only text, bytes, numbers, lists, tuples and "
            "mappings are read here."
        )


def dumps(value: object) -> bytes:
    """Return a value as a pickle."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def loads(data: bytes) -> Any:
    """Return the plain value of a pickle.

    Raises:
        PayloadError: it names a class or a function, or is no pickle.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except PayloadError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        raise PayloadError(f"This is no pickle: {error}.") from error
