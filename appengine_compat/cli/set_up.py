"""The checks of ``appengine-compat doctor`` that only read this environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import appengine_compat
from appengine_compat import installation, platform, settings
from appengine_compat.backends import choice, known_queues, targets
from appengine_compat.backends.base import BackendError
from appengine_compat.cli.findings import Finding, failed, ok, skipped, warning
from appengine_compat.errors import ConfigError
from appengine_compat.payload import signing
from appengine_compat.platform import Found, Platform
from appengine_compat.settings import Setting

_SERVED = (
    "google.appengine.api",
    "google.appengine.api.taskqueue",
    "google.appengine.ext.deferred",
)


def kind() -> str:
    """Return the kind of backend that is meant here, complete or not; "" where none can be."""
    try:
        return choice.meant()
    except ConfigError:
        return ""


def imports() -> Iterator[Finding]:
    """Which file serves each legacy import."""
    sources = installation.sources()
    ours = Path(appengine_compat.__file__).parent
    for module in _SERVED:
        file = sources.get(module)
        if file is None:
            yield failed(
                module, "nothing serves it", "pip install --force-reinstall appengine-compat"
            )
        elif Path(file).is_relative_to(ours):
            yield ok(module, file)
        else:
            yield warning(
                module,
                f"{file}, of Google's SDK",
                "call appengine_compat.install() in the first lines of main.py, or uninstall "
                "appengine-python-standard",
            )


def variables() -> Iterator[Finding]:
    """Whether every setting is known and allowed."""
    try:
        settings.check()
    except ConfigError as error:
        yield failed("settings", str(error), f"set or unset {error.setting}")
        return
    known = [setting.variable for setting in settings.SETTINGS if setting.is_set]
    yield ok("settings", ", ".join(known) if known else "none set; defaults hold")


def host() -> Iterator[Finding]:
    """Where the program runs, and by what that is known."""
    names = ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "K_SERVICE", "CLOUD_RUN_JOB")
    shown = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    found = platform.detect()
    yield ok("platform", f"{found.value} ({', '.join(shown) or 'by no variable of Google'})")


def backend() -> Iterator[Finding]:
    """Where tasks go, and why."""
    try:
        chosen, reason = choice.describe()
    except ConfigError as error:
        yield failed("backend", str(error), f"set {error.setting or settings.BACKEND.variable}")
        return
    yield ok("backend", f"{chosen}, since {reason}")


def place() -> Iterator[Finding]:
    """Project and location of the queues, and where each value came from."""
    if kind() != choice.CLOUD_TASKS:
        yield skipped("project and location", "only Cloud Tasks has them")
        return
    yield _placed("project", platform.project, settings.PROJECT)
    yield _placed("location", platform.location, settings.LOCATION)


def _placed(name: str, find: Callable[[], Found], setting: Setting[str | None]) -> Finding:
    try:
        found = find()
    except ConfigError as error:
        return failed(name, str(error), f"set {setting.variable}")
    return ok(name, f"{found.value}, from {found.source}")


def addresses() -> Iterator[Finding]:
    """Where each service's tasks are delivered."""
    chosen = kind()
    if chosen not in (choice.CLOUD_TASKS, choice.RQ):
        yield skipped("targets", "tasks are delivered into the app of this process")
        return
    try:
        table = settings.TARGETS.get()
    except ConfigError as error:
        yield failed("targets", str(error), f"set {settings.TARGETS.variable}")
        return
    if not table:
        if platform.detect() is Platform.APP_ENGINE:
            yield ok("targets", "App Engine, each task the service that enqueues it")
            return
        yield failed(
            "targets", "no service has an address",
            f"set {settings.TARGETS.variable} to service=https://… pairs or one address",
        )  # fmt: skip
        return
    for service, address in sorted(table.items()):
        yield _addressed(service, address, table)


def _addressed(service: str, address: str, table: Mapping[str, str]) -> Finding:
    name = service or "every service"
    place = settings.targets_place()
    try:
        found = targets.find(service or targets.DEFAULT_SERVICE, table)
    except (BackendError, ConfigError) as error:
        return failed("targets", f"{name}: {error}", f"set {place}")
    shown = found if isinstance(found, str) else "App Engine"
    if shown.startswith("http://") and _asks_google():
        return warning(
            "targets",
            f"{name} is at {shown}, where tokens can be read on the way",
            f"use https:// in {place}",
        )
    return ok("targets", f"{name} is at {shown}{'' if shown == address else f' ({address})'}")


def _asks_google() -> bool:
    return kind() == choice.CLOUD_TASKS and not platform.emulator_host()


def identity() -> Iterator[Finding]:
    """As whom tasks come, for which audience, and who is believed."""
    accounts = settings.SERVICE_ACCOUNT.get()
    if not accounts:
        if _asks_google() and platform.detect() is not Platform.APP_ENGINE:
            yield failed(
                "service account",
                "tasks would come as nobody, and be refused",
                f"set {settings.SERVICE_ACCOUNT.variable} to a service account's e-mail",
            )
            return
        yield skipped("service account", "none is set; nobody is believed by a token")
        return
    yield ok("service account", f"tasks come as {accounts[0]}; believed: {', '.join(accounts)}")
    audience = settings.AUDIENCE.get()
    if audience:
        yield ok("audience", f"{audience}, from {settings.AUDIENCE.variable}")
    elif any(address != targets.APP_ENGINE for address in settings.TARGETS.get().values()):
        yield ok("audience", f"the target's address, from {settings.targets_place()}")
    else:
        yield warning(
            "audience",
            "made from the Host header, which the sender chooses",
            f"set {settings.AUDIENCE.variable} to the service's address",
        )


def signatures() -> Iterator[Finding]:
    """Whether tasks are signed."""
    mode, keys = signing.mode(), settings.SIGNING_KEYS.get()
    if mode == signing.OFF:
        yield skipped("signatures", "off")
    elif not keys:
        yield failed(
            "signatures", f"{mode}, but there is no key", f"set {settings.SIGNING_KEYS.variable}"
        )
    else:
        ids = ", ".join(key_id for key_id, _ in keys)
        yield ok("signatures", f"{mode}; the first of these keys signs: {ids}")


def bounds() -> Iterator[Finding]:
    """What payloads may refer to."""
    allowed = settings.ALLOWED_CALLABLES.get()
    variable = settings.ALLOWED_CALLABLES.variable
    if allowed is None:
        yield skipped(
            "allowed callables", f"everything ({variable}=log-only collects what is used)"
        )
    elif allowed.is_log_only:
        yield warning(
            "allowed callables", "log-only: nothing is refused", f"take log-only out of {variable}"
        )
    else:
        yield ok("allowed callables", ", ".join(allowed.names))


def database() -> Iterator[Finding]:
    """Whether the embedded service's file can be written."""
    if kind() != choice.EMBEDDED:
        return
    path = Path(settings.DB.get())
    there = (
        path if path.exists() else next(part for part in path.absolute().parents if part.exists())
    )
    if os.access(there, os.W_OK):
        yield ok("database", f"{path}{'' if path.exists() else ', made with the first task'}")
    else:
        yield failed(
            "database", f"{there} cannot be written", f"set {settings.DB.variable} to another place"
        )


def queue_file() -> str | None:
    """Return the queue.yaml that holds here, or None."""
    return known_queues.queue_yaml_path()
