"""The signpost: makes ``google.appengine`` a package whose modules are appengine-compat's.

Installed as the single file ``google/appengine.py``. Google's SDK has a *folder* of that name,
and a folder wins over a file, so both can be installed without either overwriting the other.
"""

from __future__ import annotations

import importlib.util
import os as _os

_spec = importlib.util.find_spec("appengine_compat")
if _spec is None or not _spec.submodule_search_locations:
    raise ImportError(
        "google.appengine is served by appengine-compat, whose package appengine_compat cannot "
        "be found. Reinstall it: pip install --force-reinstall appengine-compat"
    )
__path__ = [_os.path.join(next(iter(_spec.submodule_search_locations)), "legacy")]  # noqa: PTH118
