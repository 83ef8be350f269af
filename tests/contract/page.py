"""The table of what every backend promises, in the words of the suite that holds it.

``python -m tests.contract.page`` writes it into the pages that show it. The suite runs each test
against each backend, and no test is left out for one: so each row holds for each column.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

SUITE = Path(__file__).with_name("test_backend.py")
PAGES = (Path(__file__).parents[2] / "docs" / "road-rq.md",)

_TABLE = re.compile(r"(<!-- contract -->\n).*?(<!-- /contract -->\n)", re.DOTALL)


def table() -> str:
    """Return the table, in Markdown."""
    tree = ast.parse(SUITE.read_text("utf-8"))
    backends = _backends(tree)
    lines = [
        f"| | {' | '.join(backends)} |",
        f"|---{'|---' * len(backends)}|",
    ]
    for subject, promise in _promises(tree):
        lines.append(f"| {subject}: {promise} |{' yes |' * len(backends)}")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return a page's text with the table as it stands now."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{table()}\n{match[2]}", text)


def _backends(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "rig":
            for keyword in ast.walk(node.decorator_list[0]):
                if isinstance(keyword, ast.keyword) and keyword.arg == "params":
                    backends: list[str] = ast.literal_eval(keyword.value)
                    return backends
    raise LookupError(f"{SUITE} has no fixture `rig` with params")


def _promises(tree: ast.Module) -> list[tuple[str, str]]:
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            subject = re.sub(r"(?<!^)(?=[A-Z])", " ", node.name[4:]).lower()
            tests = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            subject, tests = "all", [node]
        else:
            continue
        found += [(subject, each.name[5:].replace("_", " ")) for each in tests]
    return found


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text("utf-8")), "utf-8")
