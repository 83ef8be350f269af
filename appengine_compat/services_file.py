"""``appengine-compat.toml``: where each service is, in a file beside queue.yaml.

Python has a reader for TOML since 3.11 only, and it tells no columns of what is wrong in meaning.
What this file may hold is one table of texts, for which a few patterns do; whatever they take,
any reader of TOML takes as the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from appengine_compat.errors import ConfigError

NAME = "appengine-compat.toml"
TABLE = "services"
VARIABLE = "APPENGINE_COMPAT_TARGETS"
"""The setting that stands instead of the file."""

_NO_CONTROL = r"\x00-\x08\x0a-\x1f\x7f"
_END = rf"[ \t]*(?:#[^{_NO_CONTROL}]*)?\Z"
_TEXT = rf"\"[^\"\\{_NO_CONTROL}]*\"|'[^'{_NO_CONTROL}]*'"
_NOTHING = re.compile(_END)
_HEADER = re.compile(rf"[ \t]*\[[ \t]*(?P<name>[A-Za-z0-9_.\-]+)[ \t]*\]{_END}")
_ENTRY = re.compile(rf"[ \t]*(?P<key>[A-Za-z0-9_\-]+|{_TEXT})[ \t]*=[ \t]*(?P<value>{_TEXT}){_END}")
_DOTTED = re.compile(r"[ \t]*(?P<key>[\w\-]+(?:[ \t]*\.[ \t]*[\w\-]+)+)[ \t]*=")

_SERVICE = re.compile(r"\A(?:(?!-)[a-z0-9\-]{1,100}\.){0,2}(?!-)[a-z0-9\-]{1,100}\Z")

_Key = tuple[str, int, int, int, int]
_read: dict[_Key, Mapping[str, str]] = {}


def load(directory: str) -> Mapping[str, str]:
    """Return the table of the file in a directory, from service to address; empty without one.

    Args:
        directory: where queue.yaml is, "" for the working directory.

    Raises:
        ConfigError: the file cannot be read, or holds something else; names line and column.
    """
    path = f"{directory}/{NAME}" if directory else NAME
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path costs more than the look)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _unreadable(path, error) from error
    # Asked for by each request that is verified; a file that was changed is another one.
    key = (path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    if key not in _read:
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        table = parse(text, path)
        _read.clear()
        _read[key] = table
    return _read[key]


def parse(text: str, path: str = NAME) -> Mapping[str, str]:
    """Read the text of such a file.

    Raises:
        ConfigError: it is not a table ``[services]`` of texts that are addresses.
    """
    table: dict[str, str] = {}
    is_inside = False
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if _NOTHING.match(line):
            continue
        place = _Place(path, number, line)
        header = _HEADER.match(line)
        if header:
            if header["name"] != TABLE:
                place.refuse(f"there is no table [{header['name']}] here, only [{TABLE}]")
            if is_inside:
                place.refuse(f"[{TABLE}] stands here a second time")
            is_inside = True
            continue
        service, address = _entry(place, is_inside)
        if service in table:
            place.refuse(f"service {service!r} is given twice")
        table[service] = address
    return table


def checked_address(text: str) -> str:
    """Return an address as the table holds it.

    Raises:
        ValueError: it is neither an http address nor one of the words for one.
    """
    address = text.strip().rstrip("/")
    if address not in ("appengine", "ngrok") and not address.startswith(("http://", "https://")):
        raise ValueError(f"{text!r} has no http:// or https:// address")
    return address


class _Place:
    """A line of the file, for what is said of it."""

    def __init__(self, path: str, number: int, line: str) -> None:
        self.path, self.number, self.line = path, number, line

    def refuse(self, reason: str, column: int = 0) -> NoReturn:
        column = column or len(self.line) - len(self.line.lstrip(" \t")) + 1
        raise ConfigError(f"{self.path}:{self.number}:{column}: {reason}.", setting=VARIABLE)


def _entry(place: _Place, is_inside: bool) -> tuple[str, str]:
    entry = _ENTRY.match(place.line)
    if not entry:
        dotted = _DOTTED.match(place.line)
        if dotted and is_inside:
            place.refuse(f'a name with dots needs quotes: "{dotted["key"]}" = …')
        if not is_inside:
            place.refuse(f"this file begins with the line [{TABLE}]")
        place.refuse('a line is a service and its address in quotes: worker = "https://…"')
    if not is_inside:
        place.refuse(f"this stands before the line [{TABLE}], below which it belongs")
    key, value = entry["key"], entry["value"][1:-1]
    service = key[1:-1] if key[0] in "\"'" else key
    if not _SERVICE.match(service):
        place.refuse(
            f"{service!r} is no name for a service (small letters, digits and hyphens), nor "
            "version.service"
        )
    try:
        return service, checked_address(value)
    except ValueError:
        place.refuse(
            f"{value!r} is no address: write http://… or https://…, appengine or ngrok",
            entry.start("value") + 1,
        )


def _unreadable(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({error}): make it a readable text in UTF-8, or set {VARIABLE}, "
        "which stands instead of it.",
        setting=VARIABLE,
    )
