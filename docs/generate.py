"""Writes docs/configuration.md from the settings table: ``make docs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appengine_compat import settings

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# Configuration

<!-- Written by `make docs` from appengine_compat/settings.py: change it there. -->

Every setting is an environment variable; none is needed to begin. Settings are read when they
are used, so a program may also set them from code, which wins over the environment:

```python
import appengine_compat

appengine_compat.configure(queue_yaml="config/queue.yaml", threads=4)
```

The keyword is the variable's name in lower case, without `APPENGINE_COMPAT_`; `None` takes a value
back. An unknown `APPENGINE_COMPAT_*` variable, or a value that is not allowed, is an error that
names the variable, the value and what is allowed; values of secret settings are never shown.

## Our own variables
"""

GOOGLE = """
## Google's variables

Read where the platform, or you, have set them:

| variable | what it means here |
|---|---|
"""


def page() -> str:
    """Return the whole text of docs/configuration.md."""
    rows = "".join(f"| `{variable}` | {text} |\n" for variable, text in settings.GOOGLE_VARIABLES)
    return INTRODUCTION + "".join(map(_section, settings.SETTINGS)) + GOOGLE + rows


def _section(setting: settings.Setting[Any]) -> str:
    secret = "- Secret: never shown in errors or logs.\n" if setting.is_secret else ""
    return (
        f"\n### `{setting.variable}`\n\n{setting.sentence}\n\n"
        f"- Allowed: {setting.allowed}\n- Default: {_default(setting)}\n{secret}"
    )


def _default(setting: settings.Setting[Any]) -> str:
    return setting.default_text or f"`{setting.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
