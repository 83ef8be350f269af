"""``google.appengine.api.labs.taskqueue``: another name of ``google.appengine.api.taskqueue``.

Differs from App Engine: importing it warns of nothing.
"""

from __future__ import annotations

import sys

from google.appengine.api import taskqueue

# The very module, so that what one name is patched with holds for the other.
sys.modules[__name__] = taskqueue
