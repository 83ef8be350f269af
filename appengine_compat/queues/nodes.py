"""A YAML document as nodes that know their place: the one home of PyYAML.

Import this where a file is read, not before: PyYAML is an optional dependency.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

import yaml

from appengine_compat.errors import QueueYamlError

T = TypeVar("T")

_NULL = "tag:yaml.org,2002:null"
# Bounded, so that no text is a number that int() or float() cannot hold.
_WHOLE = re.compile(r"\A[+-]?\d{1,18}\Z", re.A)
_DECIMAL = re.compile(r"\A[+-]?(?:\d{1,18}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?\Z", re.A)
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Document:
    """One YAML text; its methods read values of nodes, and say where a fault is.

    Raises:
        QueueYamlError: from every method, with the line and column of the fault.
    """

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.root = self._compose(text)

    def _compose(self, text: str) -> yaml.Node | None:
        """The only document's root; None when the text holds nothing."""
        try:
            loader = yaml.SafeLoader(text)
            try:
                root = loader.get_single_node()
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
            words = ", ".join(part for part in (error.context, error.problem) if part)
            raise QueueYamlError(self.path, *place, f"is not YAML: {words}") from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise QueueYamlError(self.path, line, column, f"is not YAML: {error.reason}") from None
        return None if is_empty(root) else root

    def fault(self, node: yaml.Node | None, reason: str) -> NoReturn:
        """Raise what is wrong at a node; None concerns the whole file."""
        mark = node.start_mark if node is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        raise QueueYamlError(self.path, line, column, reason)

    def mapping(
        self,
        node: yaml.Node | None,
        what: str,
        known: tuple[str, ...],
        advice: Callable[[str, tuple[str, ...]], str],
    ) -> dict[str, yaml.Node]:
        """Return a mapping's value nodes by key; refuse unknown and repeated keys.

        Args:
            node: the node; nothing there reads as an empty mapping.
            what: how errors name it.
            known: the keys that may stand in it.
            advice: given an unknown key and the known ones, ends the sentence about it.
        """
        if node is None or is_empty(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what} is {_kind(node)}; it is a mapping, such as '{known[0]}: …'")
        fields: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = self.text(key_node, f"a key of {what}")
            if key not in known:
                self.fault(key_node, f"{what} has no {key!r}{advice(key, known)}")
            if key in fields:
                self.fault(key_node, f"{what} has {key!r} twice; remove one")
            fields[key] = value_node
        return fields

    def items(self, node: yaml.Node | None, what: str, is_a: str) -> list[yaml.Node]:
        """Return a list's nodes; nothing there reads as an empty list."""
        if node is None or is_empty(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, f"{what} is {_kind(node)}; it is {is_a}")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        """Return a single value as it is written in the file."""
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, f"{what} is {_kind(node)}; it is a single value")
        if is_empty(node):
            self.fault(node, f"{what} has no value; give one or remove the line")
        return str(node.value)

    def matching(
        self, node: yaml.Node | None, pattern: re.Pattern[str], what: str, is_a: str
    ) -> str | None:
        """Return a single value that a pattern matches; None where there is no node."""
        if node is None:
            return None
        text = self.text(node, what)
        if pattern.match(text) is None:
            self.fault(node, f"{what} is {text!r}; it is {is_a}")
        return text

    def boolean(self, node: yaml.Node | None, what: str) -> bool | None:
        """Return a truth value; None where there is no node."""
        if node is None:
            return None
        text = self.text(node, what)
        if text.lower() not in _BOOLEANS:
            self.fault(node, f"{what} is {text!r}; it is True or False")
        return _BOOLEANS[text.lower()]

    def whole(self, node: yaml.Node | None, what: str) -> int | None:
        """Return a whole number; None where there is no node."""
        text = self.matching(node, _WHOLE, what, "a whole number")
        return None if text is None else int(text)

    def decimal(self, node: yaml.Node | None, what: str) -> float | None:
        """Return a number; None where there is no node."""
        text = self.matching(node, _DECIMAL, what, "a number")
        return None if text is None else float(text)


def is_empty(node: yaml.Node | None) -> bool:
    """Tell whether a node holds nothing: absent, ``~``, ``null`` or a key without a value."""
    return node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL)


def line_of(node: yaml.Node) -> int:
    """Return the 1-based line on which a node begins."""
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "a single value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
