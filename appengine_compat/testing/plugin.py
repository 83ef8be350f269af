"""The pytest plugin: the fixtures ``taskqueue_stub``, ``tasks`` and ``local_cloud_tasks``.

pytest loads it in every project whose environment has the package, so it loads nothing itself
until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from google.appengine.api.taskqueue.taskqueue_stub import TaskQueueServiceStub

    from appengine_compat.testing.cloud_tasks import LocalCloudTasks
    from appengine_compat.testing.tasks import Tasks

_INSTALL = "aec_install"
_QUEUE_YAML = "aec_queue_yaml"
_HELD = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of pytest.ini."""
    parser.addini(
        _QUEUE_YAML,
        "appengine-compat: the queue.yaml whose queues tests have, and no others; relative to "
        "the rootdir. Unset: queue.yaml in the rootdir, its src folder or the working directory "
        "if there is one, and any other queue is made on first use.",
        default="",
    )
    parser.addini(
        _INSTALL,
        "appengine-compat: call appengine_compat.install() before anything is imported, for "
        "projects that keep Google's SDK beside it.",
        type="bool",
        default=False,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Be there before a conftest imports the app, and with it what it is built on."""
    _hold(early_config)
    if early_config.getini(_INSTALL):
        import appengine_compat

        appengine_compat.install()


def pytest_configure(config: pytest.Config) -> None:
    """Hold the embedded service where the plugin came too late to do so before."""
    _hold(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let it go again, for a program that runs pytest and goes on."""
    if config.stash.get(_HELD, False):
        from appengine_compat.backends import holding

        del config.stash[_HELD]
        holding.release()


def _hold(config: pytest.Config) -> None:
    # Importing an app registers it: under test that must start no threads, nor open a database
    # in which tasks of the developer may wait.
    if not config.stash.get(_HELD, False):
        from appengine_compat.backends import holding

        config.stash[_HELD] = True
        holding.hold()


@pytest.fixture
def taskqueue_stub(request: pytest.FixtureRequest) -> Iterator[TaskQueueServiceStub]:
    """The task queue of this test: tasks are kept and looked at, and none leaves the process."""
    stub = _made_stub(request.config)
    from google.appengine.api import apiproxy_stub_map

    service = "taskqueue"
    proxies: Any = apiproxy_stub_map.apiproxy
    before = proxies.GetStub(service)
    stub.activate()
    proxies.ReplaceStub(service, stub)
    yield stub
    proxies.ReplaceStub(service, before)
    stub.deactivate()


@pytest.fixture
def tasks(taskqueue_stub: TaskQueueServiceStub) -> Tasks:
    """The queued tasks of this test, to be run through the app on a clock that is stepped."""
    from appengine_compat.testing.tasks import Tasks

    return Tasks(taskqueue_stub)


@pytest.fixture
def local_cloud_tasks(request: pytest.FixtureRequest) -> Iterator[LocalCloudTasks]:
    """A local Cloud Tasks of this test alone: gRPC and REST on free ports, kept in memory.

    It has the queue ``default``, and those of the queue.yaml that the stub would have. For
    addresses of services, a stepped clock and the rest call
    ``appengine_compat.testing.local_cloud_tasks`` in a fixture of your own.
    """
    from appengine_compat.testing.cloud_tasks import local_cloud_tasks

    given = request.config.getini(_QUEUE_YAML)
    path = request.config.rootpath / given if given else _found_queue_yaml(request.config)
    with local_cloud_tasks(queue_yaml=path) as running:
        yield running


def _made_stub(config: pytest.Config) -> TaskQueueServiceStub:
    from google.appengine.api.taskqueue import taskqueue_stub

    from appengine_compat.backends.stub import StubBackend

    stub_class = taskqueue_stub.TaskQueueServiceStub
    if not issubclass(stub_class, StubBackend):
        raise pytest.UsageError(
            "google.appengine.api.taskqueue is that of Google's SDK, so the fixture has no stub "
            f"for it: set '{_INSTALL} = true' in the pytest configuration, or call "
            "appengine_compat.install() at the top of conftest.py."
        )
    given = config.getini(_QUEUE_YAML)
    if given:
        return stub_class(queue_config_path=config.rootpath / given)
    return stub_class(queue_config_path=_found_queue_yaml(config), _all_queues_valid=True)


def _found_queue_yaml(config: pytest.Config) -> Path | None:
    from importlib.util import find_spec

    from appengine_compat import settings
    from appengine_compat.queues import queue_yaml

    # Nobody asked for the file, so nobody has to have installed what reads it.
    if find_spec("yaml") is None:
        return None
    chosen = settings.QUEUE_YAML.get()
    if chosen is not None:
        return Path(chosen)
    folders = (config.rootpath, config.rootpath / "src", Path.cwd())
    return next((path for folder in folders if (path := queue_yaml.find(folder))), None)
