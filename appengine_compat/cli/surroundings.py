"""The checks of ``appengine-compat doctor`` that ask others: Google, Redis, the handler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from appengine_compat import platform, settings
from appengine_compat.backends import choice, targets
from appengine_compat.backends.base import BackendError
from appengine_compat.cli import set_up
from appengine_compat.cli.findings import Finding, failed, ok, skipped, warning
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ConfigError
from appengine_compat.queues import queue_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appengine_compat.core.model import Queue

DEFERRED_PATH = "/_ah/queue/deferred"
HTTP_SECONDS = 10.0
SKEW_SECONDS = 30.0
"""What the door allows for clocks that differ."""

_OWNER = "an owner of the project must run: gcloud iam service-accounts add-iam-policy-binding"


def credentials() -> Iterator[Finding]:
    """Who we are to Google, and whether we may put the service account on tasks."""
    if set_up.kind() != choice.CLOUD_TASKS or platform.emulator_host():
        yield skipped("credentials", "Google is not asked here")
        return
    from appengine_compat.backends import cloud_tasks_inspection as inspection

    try:
        who = inspection.identity()
    except inspection.InspectionError as error:
        yield failed("credentials", str(error), "gcloud auth application-default login")
        return
    yield ok("credentials", f"{who.email or 'an account they do not name'} ({who.kind})")
    accounts = settings.SERVICE_ACCOUNT.get()
    if not accounts:
        return
    check, account = "act as", accounts[0]
    member = f"serviceAccount:{who.email}" if "gserviceaccount" in who.email else "user:YOU"
    remedy = f"{_OWNER} {account} --member={member} --role=roles/iam.serviceAccountUser"
    try:
        may = inspection.may_act_as(account)
    except inspection.InspectionError as error:
        yield warning(check, f"whether tasks may come as {account} is not known: {error}", remedy)
        return
    if may:
        yield ok(check, f"tasks may come as {account}")
    else:
        yield failed(check, f"{who.email or 'these credentials'} may not act as {account}", remedy)


def queues() -> Iterator[Finding]:
    """Each queue of queue.yaml against what is there."""
    path = set_up.queue_file()
    if path is None:
        wanted: Mapping[str, Queue | None] = {"default": None}
        yield skipped("queue.yaml", "none; only the queue default is looked for")
    else:
        try:
            wanted = {queue.name.rpartition("/")[2]: queue for queue in queue_yaml.load(path, "")}
        except (OSError, ConfigError) as error:
            yield failed("queue.yaml", str(error), f"mend {path}")
            return
        yield ok("queue.yaml", f"{path} has {len(wanted)} queues")
    if set_up.kind() != choice.CLOUD_TASKS:
        yield skipped("queues", "made from queue.yaml by the backend itself")
        return
    try:
        place = (platform.project().value, platform.location().value)
    except ConfigError:
        return  # told before
    yield from _queues_of_cloud_tasks(wanted, place)


def _queues_of_cloud_tasks(
    wanted: Mapping[str, Queue | None], place: tuple[str, str]
) -> Iterator[Finding]:
    from appengine_compat.backends import cloud_tasks_inspection as inspection

    inspector = inspection.Inspector()
    where = f"--project={place[0]} --location={place[1]}"
    for queue_id, queue in wanted.items():
        check = f"queue {queue_id}"
        try:
            found = inspector.queue(str(QueueName(*place, queue_id)))
        except inspection.InspectionError as error:
            yield failed(
                check,
                str(error),
                f"grant roles/cloudtasks.viewer in {place[0]}; enable cloudtasks.googleapis.com",
            )
            continue
        flags = f"{queue_id} {where}{_flags(queue)}"
        if found is None:
            yield failed(
                check, f"not in {place[0]}, {place[1]}", f"gcloud tasks queues create {flags}"
            )
            continue
        if found.State.Name(found.state) != "RUNNING":
            yield warning(
                check,
                f"is {found.State.Name(found.state).lower()}: its tasks wait",
                f"gcloud tasks queues resume {queue_id} {where}",
            )
            continue
        other = inspection.differences(queue, found) if queue is not None else []
        if other:
            yield warning(check, f"has {'; '.join(other)}", f"gcloud tasks queues update {flags}")
        else:
            yield ok(check, "is there, and runs")


def _flags(queue: Queue | None) -> str:
    if queue is None:
        return ""
    return (
        f" --max-dispatches-per-second={queue.rate_limits.max_dispatches_per_second:g}"
        f" --max-concurrent-dispatches={queue.rate_limits.max_concurrent_dispatches}"
        f" --max-attempts={queue.retry_config.max_attempts}"
    )


def redis() -> Iterator[Finding]:
    """Whether Redis answers."""
    if set_up.kind() != choice.RQ:
        return
    try:
        from appengine_compat.backends.rq import connection
    except ImportError as error:
        yield failed("redis", str(error), "pip install 'appengine-compat[rq]'")
        return
    try:
        address = connection.url()
    except ConfigError:
        return  # told before
    try:
        connection.client(address).ping()
    except Exception as error:  # the client's own errors, of a library that may not be there
        yield failed(
            "redis", f"does not answer: {error}",
            f"start it (redis-server), and set {settings.REDIS_URL.variable} to where it is",
        )  # fmt: skip
    else:
        yield ok("redis", connection.shown(address))


def keys_and_clock() -> Iterator[Finding]:
    """Whether the keys of tokens can be fetched, and how far this clock is from their server's."""
    if not settings.SERVICE_ACCOUNT.get():
        yield skipped("clock", "no token is checked here")
        return
    from appengine_compat.handler import oidc_keys

    url = settings.OIDC_ISSUER.get() or oidc_keys.GOOGLE_KEYS_URL
    try:
        count = oidc_keys.count(settings.OIDC_ISSUER.get())
        _, _, date = request("GET", url)
    except Exception as error:  # whatever stands between here and there
        yield failed("token keys", f"{url}: {error}", f"let this service reach {url}")
        return
    yield ok("token keys", f"{count} from {url}")
    if not date:
        yield skipped("clock", f"{url} does not tell the time")
        return
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew) > SKEW_SECONDS:
        yield failed(
            "clock", f"{skew:+.0f} seconds off {url}", "set the clock (timedatectl set-ntp true)"
        )
    else:
        yield ok("clock", f"within {SKEW_SECONDS:.0f} seconds of {url}")


def handler_urls(given: str | None) -> list[str]:
    """Return the addresses at which tasks are handled, as the settings say."""
    if given:
        return [given.rstrip("/")]
    found = []
    for service in settings.TARGETS.get():
        try:
            place = targets.find(service or targets.DEFAULT_SERVICE, settings.TARGETS.get())
        except (BackendError, ConfigError):
            continue  # told before
        if isinstance(place, str):
            found.append(place.rstrip("/"))
    return found


def door(given: str | None) -> Iterator[Finding]:
    """Whether the handler refuses a request that shows nothing."""
    urls = handler_urls(given)
    if not urls:
        yield skipped("handler", "no address is known (--url gives one)")
    for base in urls:
        url = base + DEFERRED_PATH
        try:
            status, text, _ = request("POST", url, b"not a task")
        except (OSError, ValueError) as error:
            yield failed(
                "handler", f"{url} does not answer: {error}", "start or deploy the service"
            )
            continue
        if status in (401, 403):
            by = text.partition(":")[0] if text.startswith("AEC-") else "what stands before it"
            yield ok("handler", f"{url} answers {status} without a token, by {by}")
        elif status == 404:
            yield failed(
                "handler", f"{url} answers 404: no deferred handler is there",
                "wrap_wsgi_app(app, use_deferred=True), or install_defer_routes(app)",
            )  # fmt: skip
        elif status < 300:
            yield failed(
                "handler", f"{url} takes requests of anybody ({status})",
                "let google.appengine.ext.deferred of appengine-compat serve it, or put "
                "require_task around it",
            )  # fmt: skip
        else:
            yield warning("handler", f"{url} answers {status} without a token", "see its log")


def request(method: str, url: str, body: bytes | None = None) -> tuple[int, str, str]:
    """Make a request; return status, the beginning of the text, and the Date header.

    Raises:
        OSError: nothing answers.
        ValueError: it is no URL.
    """
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http address")
    made = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(made, timeout=HTTP_SECONDS) as answer:
            return answer.status, _text(answer.read(2000)), answer.headers.get("Date") or ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _text(error.read(2000)), error.headers.get("Date") or ""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
