"""``google.appengine.ext.testbed``: an App Engine environment for one test.

Of the services there is the task queue; the others are Google's SDK's, and asking for them says
what to install. Beside the SDK its own testbed is used, and finds our task queue stub.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from google.appengine.api import apiproxy_stub_map
from google.appengine.api.taskqueue import taskqueue_stub

from appengine_compat.backends import choice

APP_IDENTITY_SERVICE_NAME = "app_identity_service"
BLOBSTORE_SERVICE_NAME = "blobstore"
CAPABILITY_SERVICE_NAME = "capability_service"
CHANNEL_SERVICE_NAME = "channel"
DATASTORE_SERVICE_NAME = "datastore_v3"
FILES_SERVICE_NAME = "file"
IMAGES_SERVICE_NAME = "images"
MAIL_SERVICE_NAME = "mail"
MEMCACHE_SERVICE_NAME = "memcache"
MODULES_SERVICE_NAME = "modules"
SEARCH_SERVICE_NAME = "search"
TASKQUEUE_SERVICE_NAME = "taskqueue"
URLFETCH_SERVICE_NAME = "urlfetch"
USER_SERVICE_NAME = "user"
XMPP_SERVICE_NAME = "xmpp"

INIT_STUB_METHOD_NAMES = {
    APP_IDENTITY_SERVICE_NAME: "init_app_identity_stub",
    BLOBSTORE_SERVICE_NAME: "init_blobstore_stub",
    CAPABILITY_SERVICE_NAME: "init_capability_stub",
    DATASTORE_SERVICE_NAME: "init_datastore_v3_stub",
    IMAGES_SERVICE_NAME: "init_images_stub",
    MAIL_SERVICE_NAME: "init_mail_stub",
    MEMCACHE_SERVICE_NAME: "init_memcache_stub",
    MODULES_SERVICE_NAME: "init_modules_stub",
    TASKQUEUE_SERVICE_NAME: "init_taskqueue_stub",
    URLFETCH_SERVICE_NAME: "init_urlfetch_stub",
    USER_SERVICE_NAME: "init_user_stub",
}
SUPPORTED_SERVICES = sorted(INIT_STUB_METHOD_NAMES)
AUTO_ID_POLICY_SEQUENTIAL = "sequential"
AUTO_ID_POLICY_SCATTERED = "scattered"

DEFAULT_ENVIRONMENT = {
    "GAE_APPLICATION": "testbed-test",
    "GOOGLE_CLOUD_PROJECT": "testbed-test",
    "AUTH_DOMAIN": "gmail.com",
    "HTTP_HOST": "testbed.example.com",
    "CURRENT_MODULE_ID": "default",
    "CURRENT_VERSION_ID": "testbed-version",
    "GAE_RUNTIME": f"python3{sys.version_info.minor}",
    "REQUEST_ID_HASH": "testbed-request-id-hash",
    "REQUEST_LOG_ID": "7357B3D7091D",
    "SERVER_NAME": "testbed.example.com",
    "SERVER_SOFTWARE": "Development/1.0 (testbed)",
    "SERVER_PORT": "80",
    "USER_EMAIL": "",
    "USER_ID": "",
}
DEFAULT_APP_ID = DEFAULT_ENVIRONMENT["GAE_APPLICATION"]
DEFAULT_AUTH_DOMAIN = DEFAULT_ENVIRONMENT["AUTH_DOMAIN"]
DEFAULT_SERVER_NAME = DEFAULT_ENVIRONMENT["SERVER_NAME"]
DEFAULT_SERVER_PORT = DEFAULT_ENVIRONMENT["SERVER_PORT"]
DEFAULT_SERVER_SOFTWARE = DEFAULT_ENVIRONMENT["SERVER_SOFTWARE"]

_log = logging.getLogger(__name__)

_INSTALL = (
    "appengine-compat has the task queue only. For the others install Google's SDK beside it "
    "(pip install appengine-python-standard) and call appengine_compat.install() first."
)
_PROJECT_ID_RULES: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda project: len(project) >= 6, "must be at least 6 characters"),
    (lambda project: len(project) <= 30, "must not be longer than 30 characters"),
    (re.compile(r"[a-z0-9\-]+\Z").match, "only lowercase letters, digits, or hyphens are allowed"),
    (lambda project: project[0].isalpha(), "must start with a lowercase letter"),
    (lambda project: project[-1] != "-", "must not end with a hyphen"),
)


class Error(Exception):
    """Base of this module's exceptions."""


class NotActivatedError(Error):
    """The testbed is used before ``activate`` or after ``deactivate``."""


class StubNotSupportedError(Error):
    """The service has no stub here."""


class Testbed:
    """The environment of one test: variables, and stubs for services.

    Call ``activate``, then the ``init_…_stub`` methods for what the test uses, and
    ``deactivate`` when it ends.
    """

    __test__ = False  # its name looks like a test class to pytest

    def __init__(self) -> None:
        self._activated = False
        self._nothing = _NoTaskqueue()
        self._stub: taskqueue_stub.TaskQueueServiceStub | None = None
        self._outer_map: Any = None
        self._outer_environ: dict[str, str] = {}

    def activate(self, use_datastore_emulator: bool = False) -> None:
        """Begin: set the variables that App Engine has, with an empty set of stubs.

        From here on no task leaves the process: without a task queue stub, adding one is an
        ``AssertionError``, as it was on App Engine.

        Args:
            use_datastore_emulator: must be false; the datastore is Google's SDK's.

        Raises:
            StubNotSupportedError: the datastore emulator is asked for.
        """
        if use_datastore_emulator:
            raise StubNotSupportedError(f"There is no datastore here. {_INSTALL}")
        if self._activated:
            # App Engine lets a second call pass; the first one's state must not be forgotten.
            self.deactivate()
        self._outer_environ = dict(os.environ)
        self._outer_map = apiproxy_stub_map.apiproxy
        apiproxy_stub_map.apiproxy = apiproxy_stub_map.APIProxyStubMap()
        choice.activate(self._nothing)
        self._activated = True
        self.setup_env()

    def deactivate(self) -> None:
        """End: drop the stubs, and put the environment back as it was.

        Raises:
            NotActivatedError: it is not active.
        """
        self._require_active()
        self._drop_taskqueue_stub()
        choice.deactivate(self._nothing)
        apiproxy_stub_map.apiproxy = self._outer_map
        os.environ.clear()
        os.environ.update(self._outer_environ)
        self._activated = False

    def setup_env(self, overwrite: bool = False, **kwargs: str) -> None:
        """Set environment variables, and App Engine's defaults where they are missing.

        Args:
            overwrite: whether values replace those that are there.
            kwargs: names, in any case, and values. ``app_id`` sets ``APPLICATION_ID``,
                ``GAE_APPLICATION`` and ``GOOGLE_CLOUD_PROJECT``.

        Raises:
            ValueError: the app id is no project id.
        """
        values = {name.upper(): value for name, value in kwargs.items()}
        app_id = values.pop("APP_ID", None)
        if app_id is not None:
            project = app_id.rpartition("~")[2].rpartition(":")[2]
            _check_project_id(project)
            values.update(
                APPLICATION_ID=app_id, GAE_APPLICATION=app_id, GOOGLE_CLOUD_PROJECT=project
            )
        if overwrite:
            os.environ.update(values)
        if "GAE_APPLICATION" not in os.environ:
            values.setdefault("APPLICATION_ID", DEFAULT_APP_ID)
        for name, value in {**DEFAULT_ENVIRONMENT, **values}.items():
            os.environ.setdefault(name, value)

    def setup_wsgi_env(self, **kwargs: Any) -> None:
        """Set variables of a request's WSGI environ, those of them that are text.

        Args:
            kwargs: names and values, as in a WSGI environ.
        """
        os.environ.update({name: str(value) for name, value in kwargs.items() if "." not in name})

    def get_stub(self, service_name: str) -> Any:
        """Return the stub of a service, or None if it was not initialised.

        Raises:
            NotActivatedError: the testbed is not active.
            StubNotSupportedError: App Engine's testbed has no such service.
        """
        self._require_active()
        if service_name not in SUPPORTED_SERVICES:
            raise StubNotSupportedError(f'The "{service_name}" service is not supported by testbed')
        return self._stub if service_name == TASKQUEUE_SERVICE_NAME else None

    def init_taskqueue_stub(self, enable: bool = True, **stub_kw_args: Any) -> None:
        """Begin with an empty task queue; again, if there is one.

        Args:
            enable: False takes the stub away: adding a task is then an ``AssertionError``.
            stub_kw_args: those of ``taskqueue_stub.TaskQueueServiceStub``, such as ``root_path``.

        Raises:
            NotActivatedError: the testbed is not active.
        """
        self._require_active()
        stub = taskqueue_stub.TaskQueueServiceStub(**stub_kw_args) if enable else None
        self._drop_taskqueue_stub()
        if stub is not None:
            stub.activate()
            apiproxy_stub_map.apiproxy.ReplaceStub(TASKQUEUE_SERVICE_NAME, stub)
            self._stub = stub

    def init_all_stubs(self, enable: bool = True) -> None:
        """Initialise every stub there is: that of the task queue.

        Args:
            enable: False takes it away.

        Raises:
            NotActivatedError: the testbed is not active.
        """
        self.init_taskqueue_stub(enable)
        if enable:
            _log.info("init_all_stubs() initialised the taskqueue stub. %s", _INSTALL)

    def _drop_taskqueue_stub(self) -> None:
        if self._stub is not None:
            self._stub.deactivate()
            apiproxy_stub_map.apiproxy.ReplaceStub(TASKQUEUE_SERVICE_NAME, None)
            self._stub = None

    def _require_active(self) -> None:
        if not self._activated:
            raise NotActivatedError("The testbed is not activated.")

    def __getattr__(self, name: str) -> Any:
        if name not in _OTHER_INITIALISERS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def init_stub(enable: bool = True, **_: Any) -> None:
            self._require_active()
            if enable:
                raise StubNotSupportedError(f"{name}() has no stub to initialise. {_INSTALL}")

        return init_stub


_OTHER_INITIALISERS = frozenset(
    {
        *INIT_STUB_METHOD_NAMES.values(),
        "init_channel_stub",
        "init_files_stub",
        "init_search_stub",
        "init_xmpp_stub",
    }
)


class _NoTaskqueue:
    """Where tasks go while a testbed is active without a task queue stub: nowhere, and loudly."""

    kind = "stub"

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError(
            'No api proxy found for service "taskqueue". The testbed is active without it: call '
            "init_taskqueue_stub() first."
        )

    create_tasks = delete_tasks = purge_queue = queue_stats = _refuse


def _check_project_id(project: str) -> None:
    for holds, rule in _PROJECT_ID_RULES:
        if not holds(project):
            raise ValueError(f'Invalid GCP project ID "{project}": {rule}.')
