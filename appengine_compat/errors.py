"""Our own errors: each says what happened, why, and what to do next.

The legacy exception trees (``taskqueue.Error``, ``deferred.Error``) live with the legacy
surface; these are for everything that App Engine had no word for.
"""

from __future__ import annotations


class CompatError(Exception):
    """Base of every error that appengine-compat itself raises."""


class ConfigError(CompatError, ValueError):
    """A setting is missing, unknown or malformed.

    Attributes:
        setting: the name of the setting or option at fault, or "" when there is no single one.
    """

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class QueueYamlError(ConfigError):
    """A queue.yaml cannot be used.

    Attributes:
        path: the file.
        line: 1-based line of the fault, or 0 when it concerns the whole file.
        column: 1-based column, or 0.
        reason: what is wrong, without the place.
    """

    def __init__(self, path: str, line: int, column: int, reason: str) -> None:
        place = path
        if line:
            place += f":{line}"
            if column:
                place += f":{column}"
        super().__init__(f"{place}: {reason}", setting="APPENGINE_COMPAT_QUEUE_YAML")
        self.path = path
        self.line = line
        self.column = column
        self.reason = reason


class NamespaceError(CompatError, ImportError):
    """``install()`` came too late, or Google's SDK stands where ours should."""


class BackendChoiceError(ConfigError):
    """No place for tasks was chosen, and none is safe to guess."""


class StoreError(CompatError):
    """The local service's database cannot be used.

    Attributes:
        path: the database file.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class StoreTooNewError(StoreError):
    """The database was written by a newer appengine-compat."""


class PayloadError(CompatError, ValueError):
    """A payload cannot be made or read."""


class DeferWarning(UserWarning):
    """A call was deferred that is likely to fail, or to do nothing, when its task runs."""


class ApiError(CompatError):
    """What a Cloud Tasks v2 operation answers when it refuses.

    Attributes:
        code: the canonical code's name, such as "NOT_FOUND".
        message: the text that the real service answers, where it is known.
        reason: a stable word that tells apart refusals of one code (see ``core.messages``), or "".
        help_links: pairs (description, url) that the real service attaches.
        metadata: pairs of the ErrorInfo that the real service attaches; empty for none.
        stored_bytes: what a task that is too large would take as stored; else 0.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "",
        help_links: tuple[tuple[str, str], ...] = (),
        metadata: tuple[tuple[str, str], ...] = (),
        stored_bytes: int = 0,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.help_links = help_links
        self.metadata = metadata
        self.stored_bytes = stored_bytes

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[CompatError], args: tuple[object, ...], state: dict[str, object]) -> object:
    # Errors cross process borders; Exception's own way of pickling calls __init__ with args only.
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error
