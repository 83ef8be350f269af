"""The tables of what every backend promises, and of where the roads differ.

The first is in the words of the suite that holds it, the second in those of `differences.py`.
``python -m tests.contract.page`` writes it into the pages that show it. The suite runs each test
against each backend, and no test is left out for one: so each row holds for each column.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.contract.differences import APP_ENGINE, EMBEDDED, HTTP, RQ, SERVICES
from tests.contract.differences import table as differing

SUITE = Path(__file__).with_name("test_backend.py")
DOCS = Path(__file__).parents[2] / "docs"
ROADS = {
    DOCS / "redis-rq.md": (RQ, HTTP),
    DOCS / "tunnel.md": (HTTP, APP_ENGINE),
    DOCS / "services.md": (SERVICES, APP_ENGINE),
    DOCS / "local-development.md": (EMBEDDED, APP_ENGINE),
}
"""Each page's road, and what it is compared with."""
PAGES = tuple(ROADS)

_TABLE = re.compile(r"(<!-- contract -->\n).*?(<!-- /contract -->\n)", re.DOTALL)
_DIFFERENCES = re.compile(r"(<!-- differences -->\n).*?(<!-- /differences -->\n)", re.DOTALL)


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


def written(path: Path) -> str:
    """Return a page's text with its tables as they stand now."""
    text = _TABLE.sub(lambda match: f"{match[1]}\n{table()}\n{match[2]}", path.read_text("utf-8"))
    differences = differing(*ROADS[path])
    return _DIFFERENCES.sub(lambda match: f"{match[1]}\n{differences}\n{match[2]}", text)


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
        page.write_text(written(page), "utf-8")
