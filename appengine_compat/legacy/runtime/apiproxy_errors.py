"""``google.appengine.runtime.apiproxy_errors``: what calls to App Engine's services raised.

Old code catches these around ``taskqueue`` calls. Nothing here raises them: every failure of a
task queue call is a ``taskqueue.Error``.
"""

from __future__ import annotations


class Error(Exception):
    """Base of the errors of service calls."""


class RPCFailedError(Error):
    """A call failed without an answer."""


class CallNotFoundError(Error):
    """The service or its method does not exist."""


class ArgumentError(Error):
    """The arguments of a call could not be read."""


class DeadlineExceededError(Error):
    """A call took longer than its deadline."""


class CancelledError(Error):
    """A call was cancelled."""


class ApplicationError(Error):
    """A service answered with an error of its own.

    Attributes:
        application_error: the service's code.
        error_detail: its words.
    """

    def __init__(self, application_error: int, error_detail: str = "") -> None:
        super().__init__(application_error, error_detail)
        self.application_error = application_error
        self.error_detail = error_detail

    def __str__(self) -> str:
        return f"ApplicationError: {self.application_error} {self.error_detail}"


class OverQuotaError(Error):
    """The application used up its quota."""


class RequestTooLargeError(Error):
    """The request of a call was too large."""


class ResponseTooLargeError(Error):
    """The answer to a call was too large."""


class CapabilityDisabledError(Error):
    """The service is switched off."""


class FeatureNotEnabledError(Error):
    """The feature is not enabled for this application."""


class InterruptedError(Error):
    """A wait ended because of another call."""


class RpcAuthorityError(Error):
    """The caller may not make this call."""
