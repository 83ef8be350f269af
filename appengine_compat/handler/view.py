"""What the app sees of a request's task headers: App Engine's names, and only true ones.

Old code reads ``X-AppEngine-*`` and believes it. So on every path, before the app sees the
request, task headers that are not a believed task's are removed, and those of a task that is are
shown under App Engine's names whichever family they came in.

Everything here works on the keys of the WSGI environ: a server writes ``X-AppEngine-TaskName``,
``x_appengine_taskname`` and every other spelling of it as one key.
"""

from __future__ import annotations

from collections.abc import Iterable

from appengine_compat import platform
from appengine_compat.handler import door
from appengine_compat.handler.door import Environ, Trust, Verdict

VIEW_KEY = "appengine_compat.view"

APP_ENGINE = "HTTP_X_APPENGINE_"
CLOUD_TASKS = "HTTP_X_CLOUDTASKS_"
OURS = "HTTP_X_AEC_"
CARRIED = OURS + "CARRIED_"
LOCAL_TOKEN = OURS + "LOCAL_TOKEN"

_FAMILIES = (APP_ENGINE, CLOUD_TASKS, OURS)
_CLAIMS = frozenset(
    {
        LOCAL_TOKEN,
        APP_ENGINE + "TASKNAME",
        APP_ENGINE + "QUEUENAME",
        CLOUD_TASKS + "TASKNAME",
        CLOUD_TASKS + "QUEUENAME",
    }
)
_TASK_FACTS = tuple(
    APP_ENGINE + fact
    for fact in (
        "QUEUENAME", "TASKNAME", "TASKRETRYCOUNT", "TASKEXECUTIONCOUNT", "TASKETA",
        "TASKPREVIOUSRESPONSE", "TASKRETRYREASON", "FAILFAST",
    )
)  # fmt: skip
_CLOUD_TASKS_NAME = CLOUD_TASKS + "TASKNAME"
_USER_IP = APP_ENGINE + "USER_IP"
_SHOWN = {CLOUD_TASKS + fact[len(APP_ENGINE) :]: fact for fact in _TASK_FACTS}
_KNOWN_BY_OLD_RULES = (Trust.APP_ENGINE, Trust.TEST)
# A task may not say of itself which one it is, nor where it comes from.
_NEVER_CARRIED = frozenset((*_TASK_FACTS, _USER_IP))
# What a task may carry: the names that Cloud Tasks itself refuses to, without HTTP_ before them.
_CARRIABLE = ("X_APPENGINE_", "X_GOOGLE_")


def prepare(environ: Environ) -> bool:
    """Remove task headers that nobody may believe, and show a true task's as App Engine did.

    Changes the environ in place; a second call does nothing.

    Returns:
        Whether the request came with any such header.
    """
    if environ.get(VIEW_KEY) is True:
        return True
    environ[VIEW_KEY] = True
    # Most requests have none: one search through all names is cheaper than a look at each.
    joined = "\n".join(environ)
    if APP_ENGINE not in joined and CLOUD_TASKS not in joined and OURS not in joined:
        return False
    names = [name for name in environ if name[:7] == "HTTP_X_" and name.startswith(_FAMILIES)]
    if not _CLAIMS.isdisjoint(names):
        verdict = door.verdict(environ)
        if verdict.trusted:
            _show(environ, names, verdict)
            return True
    _strip(environ, names)
    return True


def _strip(environ: Environ, names: Iterable[str]) -> None:
    keeps_platform_headers = door.tests_are_trusted() or (
        platform.detect() is platform.Platform.APP_ENGINE
        and door.is_front_end(door.transport_address(environ))
    )
    for name in names:
        if not keeps_platform_headers or not name.startswith(APP_ENGINE):
            del environ[name]
    if keeps_platform_headers and not door.tests_are_trusted():
        # App Engine removes outsiders' headers, but lets the app's administrators set them.
        for name in _TASK_FACTS:
            environ.pop(name, None)


def _show(environ: Environ, names: list[str], verdict: Verdict) -> None:
    by_app_engine = verdict.known_by is Trust.APP_ENGINE
    unwanted = ""
    if by_app_engine:
        unwanted = CLOUD_TASKS
    elif _CLOUD_TASKS_NAME in environ:
        # Cloud Tasks never sends both families: beside its own, the other is a stranger's.
        unwanted = APP_ENGINE
    if unwanted:
        for name in names:
            if name.startswith(unwanted):
                del environ[name]
    for name in names:
        shown = _SHOWN.get(name)
        if shown is not None:
            if not by_app_engine:
                environ[shown] = environ[name]
        elif name == LOCAL_TOKEN:
            del environ[name]
        elif name.startswith(OURS):
            value = environ.pop(name)
            if name.startswith(CARRIED):
                _restore(environ, name[len(CARRIED) :], value)
    if verdict.known_by not in _KNOWN_BY_OLD_RULES:
        # Old code asks for this address to know a task by; the true one is kept beside it.
        door.rewrite_address(environ, door.TASK_ADDRESS)
        environ[_USER_IP] = door.TASK_ADDRESS


def _restore(environ: Environ, name: str, value: str) -> None:
    key = "HTTP_" + name
    if name == "HOST":
        environ[key] = value
    elif name.startswith(_CARRIABLE) and key not in _NEVER_CARRIED:
        environ.setdefault(key, value)
