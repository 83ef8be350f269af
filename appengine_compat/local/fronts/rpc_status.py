"""Refusals as google.rpc.Status, with the details that the real service attaches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from appengine_compat.errors import ApiError, StoreError

# Canonical code → HTTP status, as google/rpc/code.proto lists them.
_HTTP = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}

_logger = logging.getLogger(__name__)


class BadRequestError(ApiError):
    """INVALID_ARGUMENT for a request that could not be read at all.

    Attributes:
        violations: pairs (field path, what is wrong with it).
    """

    def __init__(self, message: str, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__("INVALID_ARGUMENT", _sayable(message))
        self.violations = tuple((_sayable(path), _sayable(text)) for path, text in violations)


def _sayable(text: str) -> str:
    # JSON may hold halves of characters, and what is quoted of it must not break the answer too.
    return text.encode("utf-8", "backslashreplace").decode()


def code_number(code: str) -> int:
    """Return a canonical code's number."""
    return int(code_pb2.Code.Value(code))


def http_status(code: str) -> int:
    """Return the HTTP status that stands for a canonical code."""
    return _HTTP[code]


def as_refusal(error: Exception, what: str) -> ApiError:
    """Return what a client is told of an exception; what nobody expected goes to the log.

    Args:
        error: what an operation raised.
        what: the operation, for the log.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StoreError):
        _logger.error("%s failed: %s", what, error)
        return ApiError("UNAVAILABLE", str(error))
    _logger.error("%s failed unexpectedly; the log has the traceback.", what, exc_info=error)
    return ApiError("INTERNAL", "Internal error encountered.")


def status(error: ApiError) -> Any:
    """Return a refusal as a google.rpc.Status."""
    message = status_pb2.Status(code=code_number(error.code), message=error.message)
    for detail in _details(error):
        message.details.add().Pack(detail)
    return message


def _details(error: ApiError) -> list[Any]:
    details: list[Any] = []
    if error.help_links:
        links = [
            error_details_pb2.Help.Link(description=description, url=url)
            for description, url in error.help_links
        ]
        details.append(error_details_pb2.Help(links=links))
    if error.metadata:
        details.append(
            error_details_pb2.ErrorInfo(
                reason=error.reason, domain="googleapis.com", metadata=dict(error.metadata)
            )
        )
    if isinstance(error, BadRequestError) and error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    return details
