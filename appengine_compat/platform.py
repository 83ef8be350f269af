"""Where the program runs, and which project and location it belongs to."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from appengine_compat import settings
from appengine_compat.errors import ConfigError


class Platform(Enum):
    """The kinds of hosts that differ in how tasks are sent and believed."""

    APP_ENGINE = "App Engine"
    CLOUD_RUN = "Cloud Run"
    KUBERNETES = "Kubernetes"
    ELSEWHERE = "this machine"


def detect(environ: Mapping[str, str] | None = None) -> Platform:
    """Return the platform, by the variables that it sets for every program."""
    environ = os.environ if environ is None else environ
    kind = environ.get("GAE_ENV")
    if kind in ("standard", "flex") or (
        # The second-generation runtimes set GAE_ENV; flexible ones only these two. The old
        # development server sets them all, with a kind of its own, and guards nothing.
        kind != "localdev" and environ.get("GAE_APPLICATION") and environ.get("GAE_INSTANCE")
    ):
        return Platform.APP_ENGINE
    if environ.get("K_SERVICE") or environ.get("CLOUD_RUN_JOB"):
        return Platform.CLOUD_RUN
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return Platform.KUBERNETES
    return Platform.ELSEWHERE


ENDS_TLS = frozenset({Platform.APP_ENGINE, Platform.CLOUD_RUN})
"""Where the front end takes the encryption off, and says so in X-Forwarded-Proto itself."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value, and where it came from."""

    value: str
    source: str
    """The variable, ``configure`` or "the metadata server"."""


METADATA_TIMEOUT_SECONDS = 2.0
PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "GAE_APPLICATION")
LOCATION_VARIABLES = ("LOCATION_ID", "GAE_LOCATION", "GAE_REGION", "REGION_ID")

EMULATOR_VARIABLE = "CLOUD_TASKS_EMULATOR_HOST"

_HOST_AND_PORT = re.compile(r"\A(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+):[0-9]{1,5}\Z")
_PROJECT = re.compile(r"\A[A-Za-z0-9:.\-]+\Z")
_LOCATION = re.compile(r"\A[A-Za-z0-9\-]+\Z")
# App Engine's application ids begin with the letter of the group of data centres they live in.
_APPLICATION_PREFIX = re.compile(r"\A[a-z]+~")
_ZONE = re.compile(r"\A([a-z]+-[a-z]+[0-9]+)-[a-z]\Z")
# App Engine calls its two oldest regions by names that Cloud Tasks does not know.
_LEGACY_REGIONS = {"us-central": "us-central1", "europe-west": "europe-west1"}
# A host name's longest part; a Cloud Run service with a longer one has an address that was drawn.
_LONGEST_LABEL = 63
OWN_URL_AGAIN_SECONDS = 30.0
"""How long after the metadata server did not tell, it is asked for the own address again."""
_METADATA = "the metadata server"
_from_metadata: dict[str, str] = {}


def project() -> Found:
    """Return the project that holds the queues, without App Engine's ``s~`` before it.

    Raises:
        ConfigError: it is not known, or not shaped like a project id; never a guess.
    """
    found = _configured(settings.PROJECT, PROJECT_VARIABLES)
    if found is None:
        found = Found(
            _ask_for("The project", settings.PROJECT, PROJECT_VARIABLES, "project/project-id"),
            _METADATA,
        )
    return _checked(
        Found(_APPLICATION_PREFIX.sub("", found.value), found.source),
        _PROJECT,
        settings.PROJECT,
    )


def location() -> Found:
    """Return the location of the queues, as Cloud Tasks names it.

    Raises:
        ConfigError: it is not known, or not shaped like a location; never a guess.
    """
    found = _configured(settings.LOCATION, LOCATION_VARIABLES)
    if found is None:
        paths = ("instance/region", "instance/zone")
        answer = _ask_for("The location", settings.LOCATION, LOCATION_VARIABLES, *paths)
        found = Found(answer, _METADATA)
    region = _LEGACY_REGIONS.get(found.value, found.value)
    return _checked(Found(region, found.source), _LOCATION, settings.LOCATION)


def _configured(setting: settings.Setting[str | None], variables: tuple[str, ...]) -> Found | None:
    value = setting.get()
    if value:
        in_environ = os.environ.get(setting.variable, "").strip() == value
        return Found(value, setting.variable if in_environ else "configure")
    for variable in variables:
        value = os.environ.get(variable, "").strip()
        if value:
            return Found(value, variable)
    return None


def _checked(found: Found, shape: re.Pattern[str], setting: settings.Setting[str | None]) -> Found:
    if shape.match(found.value):
        return found
    raise ConfigError(
        f"{found.source} gives {found.value!r} for the {setting.name}, which is not shaped like "
        f"one: set {setting.variable} to {setting.allowed}.",
        setting=setting.variable,
    )


def _ask_for(
    what: str, setting: settings.Setting[str | None], variables: tuple[str, ...], *paths: str
) -> str:
    """Return the first usable answer of the metadata server to these paths."""
    failure = ""
    for path in paths:
        try:
            answer = metadata(path).rpartition("/")[2]
        except OSError as error:
            failure = str(error)
            if not isinstance(error, FileNotFoundError):
                break
            continue
        if not path.endswith("zone"):
            return answer
        zone = _ZONE.match(answer)
        if zone:
            return zone[1]
        failure = f"it runs in {answer!r}, which names no region"
    raise ConfigError(
        f"{what} of the queues is not known: none of {setting.variable}, {', '.join(variables)} "
        f"is set, and the metadata server does not tell ({failure}). "
        f"Set {setting.variable} to {setting.allowed}.",
        setting=setting.variable,
    )


_own_url_unknown_until = 0.0


def own_url() -> str:
    """Return the address that Cloud Run gives the service that runs; "" where there is none.

    It is the one made of service, project number and region, which is known before anybody asks
    for it. A job has none, and neither has a function of the first generation, nor Knative.
    """
    global _own_url_unknown_until
    environ = os.environ
    service = environ.get("K_SERVICE", "")
    if not service or not environ.get("K_CONFIGURATION") or environ.get("KUBERNETES_SERVICE_HOST"):
        return ""
    # Each request that is verified may ask; where nobody answers, none of them shall wait.
    if time.monotonic() < _own_url_unknown_until:
        return ""
    try:
        number = metadata("project/numeric-project-id")
        region = metadata("instance/region").rpartition("/")[2]
    except OSError:
        _own_url_unknown_until = time.monotonic() + OWN_URL_AGAIN_SECONDS
        return ""
    label = f"{service}-{number}"
    if not number.isdigit() or not _LOCATION.match(region) or len(label) > _LONGEST_LABEL:
        return ""
    return f"https://{label}.{region}.run.app"


def emulator_host() -> str:
    """Return ``host:port`` of the plain-text Cloud Tasks that is to be used; "" for Google's.

    Raises:
        ConfigError: ``CLOUD_TASKS_EMULATOR_HOST`` is not shaped like one.
    """
    text = os.environ.get(EMULATOR_VARIABLE, "").strip()
    address = text.removeprefix("http://").rstrip("/")
    if address and not _HOST_AND_PORT.match(address):
        raise ConfigError(
            f"{EMULATOR_VARIABLE} is {text!r}, which is not host:port: set it to where a Cloud "
            "Tasks emulator listens in plain text, such as localhost:8123, or unset it.",
            setting=EMULATOR_VARIABLE,
        )
    return address


def metadata(path: str) -> str:
    """Return what the metadata server of Google's platforms says under a path.

    Answers are kept for the life of the process.

    Args:
        path: below ``computeMetadata/v1/``, such as ``project/project-id``.

    Raises:
        FileNotFoundError: it has nothing there.
        OSError: it does not answer within ``METADATA_TIMEOUT_SECONDS``, or something else does.
    """
    # By address: where there is no such server, looking its name up can take long.
    host = os.environ.get("GCE_METADATA_HOST") or "169.254.169.254"
    key = f"{host}/{path}"
    if key not in _from_metadata:
        _from_metadata[key] = _fetch_metadata(host, path)
    return _from_metadata[key]


def _fetch_metadata(host: str, path: str) -> str:
    # Here, since it doubles what importing costs, and most programs never ask.
    import http.client

    connection = http.client.HTTPConnection(host, timeout=METADATA_TIMEOUT_SECONDS)
    try:
        connection.request(
            "GET", f"/computeMetadata/v1/{path}", headers={"Metadata-Flavor": "Google"}
        )
        response = connection.getresponse()
        text = response.read(65536).decode("utf-8", "replace").strip()
    except http.client.HTTPException as error:
        raise OSError(f"{host} answers something else than HTTP: {error!r}") from error
    except OSError as error:
        raise OSError(f"{host} does not answer: {error}") from error
    finally:
        connection.close()
    # A captive portal or a proxy answers too; only the real one sends its flavor back.
    if response.getheader("Metadata-Flavor") != "Google":
        raise OSError(f"{host} is no metadata server of Google's")
    if response.status == 404:
        raise FileNotFoundError(f"{host} has no {path}")
    if response.status != 200 or not text:
        raise OSError(f"{host} answers {response.status} to {path}")
    return text
