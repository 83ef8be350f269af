"""What belongs to no queue: locations, operations, and the key of a location's data."""

from __future__ import annotations

import re
from typing import Any

from google.cloud.location import locations_pb2
from google.longrunning import operations_pb2

from appengine_compat.core import messages, names
from appengine_compat.local.fronts import resources
from appengine_compat.local.fronts.batch_methods import OPERATION_KEY
from appengine_compat.local.fronts.resources import Api

_OPERATION = re.compile(r"projects/[A-Za-z0-9:.\-]+/locations/[A-Za-z0-9\-]+/operations/[^/]+")
_CMEK = re.compile(r"(projects/[A-Za-z0-9:.\-]+/locations/[A-Za-z0-9\-]+)/cmekConfig")
_KEY = re.compile(r"projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")
_CMEK_KEY = "cmek "


def list_locations(api: Api, request: Any) -> Any:
    """ListLocations: the one that this server was given, then all that hold queues."""
    project = resources.project(request.name)
    found = {api.location: None}
    for name in api.service.location_ids(project):
        found.setdefault(name, None)
    return locations_pb2.ListLocationsResponse(
        locations=[_location(project, each) for each in found]
    )


def get_location(_: Api, request: Any) -> Any:
    """GetLocation; every well-formed one is there."""
    match = names.LOCATION_NAME.match(request.name)
    if match is None:
        raise messages.resource_name_malformed()
    if match["location"] == resources.WILDCARD:
        raise messages.location_unknown(resources.WILDCARD)
    return _location(match["project"], match["location"])


def _location(project: str, location_id: str) -> Any:
    return locations_pb2.Location(
        name=f"projects/{project}/locations/{location_id}",
        location_id=location_id,
        labels={"cloud.googleapis.com/region": location_id},
    )


def get_operation(api: Api, request: Any) -> Any:
    """GetOperation: one of the last day's batches."""
    if not _OPERATION.fullmatch(request.name):
        raise messages.resource_name_malformed()
    kept = api.service.document(OPERATION_KEY + request.name)
    if kept is None:
        raise messages.entity_missing()
    return operations_pb2.Operation.FromString(kept)


def get_cmek_config(api: Api, request: Any) -> Any:
    """GetCmekConfig; without a key until one is set."""
    _cmek_location(request.name)
    return _cmek(api, request.name)


def update_cmek_config(api: Api, request: Any) -> Any:
    """UpdateCmekConfig. The key is remembered; what is on this machine's disk is not encrypted."""
    config = request.cmek_config
    location = _cmek_location(config.name)
    for path in request.update_mask.paths:
        if path not in ("kms_key", "name", "*"):
            raise messages.mask_path_unknown(path)
    if set(request.update_mask.paths) == {"name"}:
        return _cmek(api, config.name)
    if config.kms_key:
        match = _KEY.fullmatch(config.kms_key)
        if match is None or not location.endswith(f"/{match[1]}"):
            raise messages.setting_invalid(
                "CmekConfig.kmsKey must be formatted: projects/<PROJECT_ID>/locations/<LOCATION_ID>"
                "/keyRings/<KEY_RING>/cryptoKeys/<KEY>, and be in the location of the config."
            )
    api.service.set_document(_CMEK_KEY + config.name, config.kms_key.encode())
    return _cmek(api, config.name)


def _cmek(api: Api, name: str) -> Any:
    kms_key = (api.service.document(_CMEK_KEY + name) or b"").decode()
    return api.version.message("CmekConfig")(name=name, kms_key=kms_key)


def _cmek_location(name: str) -> str:
    match = _CMEK.fullmatch(name)
    if match is None:
        raise messages.resource_name_malformed()
    return resources.location(match[1])
