"""What the pages say is so: their Python runs, their commands and links exist."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appengine_compat import settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Set before a block that cannot run by itself, with the reason.
NOT_RUN = re.compile(r"<!-- not run: \S.*-->")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)")
COMMAND = re.compile(r"(?<![-\w])appengine-compat +(?P<word>[a-z][a-z-]*)\b(?![:=./])")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    language: str
    line: int
    """1-based line of the first line inside the fence."""
    lines: tuple[str, ...]
    runs: bool


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        number += 1
        if not opened:
            continue
        start, indent = number, len(opened["indent"])
        while lines[number].strip() != "```":
            number += 1
        before = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
        yield Block(
            opened["language"],
            start + 1,
            tuple(line[indent:] for line in lines[start:number]),
            not NOT_RUN.fullmatch(before.strip()),
        )
        number += 1


def as_module(text: str) -> str:
    """Return a page's Python blocks as one module, each on the line where the page has it."""
    module: list[str] = []
    for block in blocks(text):
        if block.language == "python" and block.runs:
            module += [""] * (block.line - 1 - len(module))
            module += block.lines
    return "\n".join(module) + "\n"


def code_of(text: str) -> str:
    """Return what a page shows as code: its blocks that are not Python, and `such` words."""
    shown = [line for block in blocks(text) if block.language != "python" for line in block.lines]
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*shown, *re.findall(r"`([^`\n]+)`", outside)])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    module = as_module(page.read_text("utf-8"))
    if not module.strip():
        return
    # As a test file, in a process of its own: so its tests run too, and what it defines can be
    # pickled.
    file = tmp_path / f"test_{page.stem.replace('-', '_').lower()}_page.py"
    file.write_text(module, "utf-8")
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((settings.PREFIX, "GAE_", "GOOGLE_", "K_SERVICE", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly",
         "-p", "no:xdist", "--import-mode=prepend", "-q", file.name],
        cwd=tmp_path, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 5), done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"^\s*\$? ?make ([a-z][\w-]*)", code_of(page.read_text("utf-8")), re.M))
    assert named <= targets


@functools.cache
def help_of(*words: str) -> str:
    """Return what a command says of itself."""
    shown = subprocess.run(
        [sys.executable, "-m", "appengine_compat.cli.main", *words, "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, f"{' '.join(words)}: {shown.stderr}"
    return shown.stdout


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    for line in code_of(page.read_text("utf-8")).splitlines():
        found = COMMAND.search(line)
        if not found:
            continue
        rest = line[found.end() :]
        shown = help_of(found["word"])
        action = re.match(r" +([a-z][a-z-]*)\b", rest)
        if " ACTION " in shown and action:
            shown = help_of(found["word"], action[1])
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", rest):
            assert option in shown, f"{line}: there is no {option}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_variables_that_a_page_names_exist(page: Path) -> None:
    known = {setting.variable for setting in settings.SETTINGS}
    named = set(re.findall(r"APPENGINE_COMPAT_[A-Z][A-Z_]*", page.read_text("utf-8")))
    assert named <= known


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert not broken


def test_every_page_is_found_from_the_readme() -> None:
    found, unread = set(), [PAGES[0]]
    while unread:
        page = unread.pop()
        if page in found or not page.is_file():
            continue
        found.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)[)#]", page.read_text("utf-8"))
        unread += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) <= found


def test_a_block_keeps_its_line_and_a_marked_one_is_left_out() -> None:
    text = (
        "# T\n\n```python\na = 1\n```\n\n<!-- not run: no such place -->\n\n"
        "```python\nb = 2\n```\n\n- x\n\n  ```python\n  c = 3\n  ```\n```sh\nmake x\n```\n"
    )
    assert as_module(text).splitlines() == [*[""] * 3, "a = 1", *[""] * 11, "c = 3"]
    assert code_of(text) == "make x"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("appengine-compat dev main:app", "dev"),
        ("../.venv/bin/appengine-compat dev", "dev"),
        ("pip install -e '/path/to/appengine-compat[dev]'", None),
        ("pip install appengine-compat", None),
        ("$ appengine-compat   tasks kept", "tasks"),
    ],
)
def test_commands_are_told_from_the_distribution(line: str, word: str | None) -> None:
    found = COMMAND.search(line)
    assert (found and found["word"]) == word
