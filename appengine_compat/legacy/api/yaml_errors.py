"""``google.appengine.api.yaml_errors``: what is wrong in a configuration file, and where."""

from __future__ import annotations


class Error(Exception):
    """Base of this module's exceptions."""


class EventListenerError(Error):
    """A configuration file cannot be used."""


class EventListenerYAMLError(EventListenerError):
    """A configuration file is not YAML.

    Attributes:
        cause: the error in its own terms.
    """

    def __init__(self, cause: object) -> None:
        super().__init__(cause)
        self.cause = cause


class EventError(EventListenerError):
    """Something in a configuration file is not allowed there.

    Attributes:
        cause: what is wrong, without the place.
        line: 1-based line.
        column: 1-based column.
    """

    def __init__(self, cause: object, line: int = 0, column: int = 0) -> None:
        super().__init__(cause, line, column)
        self.cause = cause
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.cause}\n  in line {self.line}, column {self.column} (line: {self.line})"
