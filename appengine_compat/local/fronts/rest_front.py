"""The REST door: HTTP and JSON to the same RPCs, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from google.api import httpbody_pb2
from google.protobuf import json_format

from appengine_compat.errors import ApiError
from appengine_compat.local.fronts import rest_json, rest_routes, rpc_status, task_methods
from appengine_compat.local.fronts.methods import methods
from appengine_compat.local.fronts.resources import Api
from appengine_compat.local.fronts.rest_json import Problems
from appengine_compat.local.fronts.rpc_status import BadRequestError
from appengine_compat.local.fronts.versions import V2, V2BETA3
from appengine_compat.local.service import LocalService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_JSON = "application/json; charset=UTF-8"
_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_BATCH_BODY_BYTES = 160 * 1024 * 1024
_LONG_BODIES_AT_ONCE = 2
"""A long body takes several times its length while it is read."""

# Every Google API takes these; they say nothing to a call.
_SYSTEM_PARAMETERS = frozenset(
    {
        "access_token",
        "fields",
        "key",
        "oauth_token",
        "prettyPrint",
        "quotaUser",
        "uploadType",
        "upload_protocol",
        "userIp",
        "userProject",
        "xgafv",
        ".xgafv",
    }
)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def application(
    service: LocalService,
    *,
    location: str = "us-central1",
    mounts: Mapping[str, WSGIApplication] | None = None,
) -> WSGIApplication:
    """Return the WSGI application of the REST door.

    Args:
        service: does the work.
        location: the location that is listed though it has no queue yet.
        mounts: what else the port serves, by the path that it begins with (``/_local``); each
            gets its requests with the path whole.
    """
    served = methods(service, location)
    apis = {version.label: Api(service, version, location) for version in (V2, V2BETA3)}
    few_at_once = threading.BoundedSemaphore(_LONG_BODIES_AT_ONCE)
    others = sorted((mounts or {}).items(), key=lambda item: -len(item[0]))

    def call(environ: WSGIEnvironment) -> tuple[int, bytes]:
        path, http_method = _path(environ), environ["REQUEST_METHOD"]
        parameters, enums_as_numbers = _parameters(environ)
        buffered = rest_routes.find_buffer(http_method, path)
        if buffered is not None:
            made = _buffer(apis[buffered.version], buffered, environ, parameters)
            text = {"task": json_format.MessageToDict(made)}
            return 200, rest_json.dumps(text)
        found = rest_routes.find(http_method, path)
        if found is None:
            raise ApiError("NOT_FOUND", f"There is no method {http_method} {path} here.")
        if _length(environ) <= _MAX_BODY_BYTES:
            return answer(*found, environ, parameters, enums_as_numbers)
        with few_at_once:
            return answer(*found, environ, parameters, enums_as_numbers)

    def answer(
        route: rest_routes.Route,
        resource: str,
        environ: WSGIEnvironment,
        parameters: list[tuple[str, str]],
        enums_as_numbers: bool,
    ) -> tuple[int, bytes]:
        method = served[route.rpc]
        request = method.request_class()
        problems = Problems()
        if route.body:
            _read_body(request, route.body, environ, problems)
        if route.body != rest_routes.WHOLE:
            _bind_parameters(request, parameters, route.body, problems)
        else:
            _refuse_parameters(parameters, problems)
        problems.check()
        _set(request, route.path_field, resource)
        return 200, rest_json.write(method.call(request), enums_as_numbers=enums_as_numbers)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        for prefix, mounted in others:
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return mounted(environ, start_response)
        try:
            status, text = call(environ)
        except Exception as error:
            refusal = rpc_status.as_refusal(error, f"{environ['REQUEST_METHOD']} {path}")
            status, text = rpc_status.http_status(refusal.code), error_text(refusal)
        return _answer(start_response, status, text)

    return app


def error_text(refusal: ApiError) -> bytes:
    """Return the JSON body in which a refusal is answered."""
    status = rpc_status.status(refusal)
    error: dict[str, Any] = {
        "code": rpc_status.http_status(refusal.code),
        "message": refusal.message,
        "status": refusal.code,
    }
    if status.details:
        error["details"] = json_format.MessageToDict(status)["details"]
    return rest_json.dumps({"error": error})


def _answer(start_response: StartResponse, status: int, text: bytes) -> list[bytes]:
    start_response(
        f"{status} {_REASONS[status]}",
        [
            ("Content-Type", _JSON),
            ("Content-Length", str(len(text))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "private"),
        ],
    )
    return [text]


def _path(environ: WSGIEnvironment) -> str:
    raw = environ.get("PATH_INFO", "").encode("latin-1")
    try:
        return str(raw.decode())
    except UnicodeDecodeError:
        raise BadRequestError("The path of the request is not UTF-8.") from None


def _parameters(environ: WSGIEnvironment) -> tuple[list[tuple[str, str]], bool]:
    """Return the query's parameters that a call may use, and how enums are to be written."""
    own, enums_as_numbers = [], False
    try:
        pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise BadRequestError(f"The query of the request cannot be read: {error}") from None
    for name, value in pairs:
        plain = name[1:] if name.startswith("$") else name
        if plain == "alt":
            enums_as_numbers = _reads_alt(value)
        elif plain not in _SYSTEM_PARAMETERS:
            own.append((name, value))
    return own, enums_as_numbers


def _reads_alt(value: str) -> bool:
    kind, _, option = value.partition(";")
    if kind != "json" or option not in ("", "enum-encoding=int"):
        raise BadRequestError(f"Answers come as alt=json here, not as alt={value}.")
    return bool(option)


def _read_body(request: Any, into: str, environ: WSGIEnvironment, problems: Problems) -> None:
    is_batch = environ["PATH_INFO"].endswith((":batchCreate", ":batchDelete"))
    value = rest_json.parse(_body(environ, _MAX_BATCH_BODY_BYTES if is_batch else _MAX_BODY_BYTES))
    if into == rest_routes.WHOLE:
        rest_json.read(request, value, "", problems)
        return
    target = getattr(request, into)
    target.SetInParent()
    rest_json.read(target, value, into, problems)


def _body(environ: WSGIEnvironment, most: int) -> bytes:
    length = _length(environ)
    if length > most:
        raise BadRequestError(f"Request payload size exceeds the limit: {most} bytes.")
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def _length(environ: WSGIEnvironment) -> int:
    # The server has put chunks together, and refused lengths that are none.
    return int(environ.get("CONTENT_LENGTH") or 0)


def _bind_parameters(
    request: Any, parameters: Iterable[tuple[str, str]], body: str, problems: Problems
) -> None:
    values: dict[str, Any] = {}
    masks: dict[str, list[str]] = {}
    known = request.DESCRIPTOR.fields_by_name
    by_json_name = {field.json_name: field for field in request.DESCRIPTOR.fields}
    for name, value in parameters:
        field = by_json_name.get(name) or known.get(name)
        if field is None or field.name == body:
            _refuse_parameters([(name, value)], problems)
        elif field.message_type is not None and field.message_type.name == "FieldMask":
            # A mask may come whole or a path at a time.
            masks.setdefault(field.name, []).append(value)
        else:
            values[field.name] = value
    values |= {name: ",".join(parts) for name, parts in masks.items()}
    rest_json.read(request, values, "", problems)


def _refuse_parameters(parameters: Iterable[tuple[str, str]], problems: Problems) -> None:
    for name, _ in parameters:
        problems.unknown(
            "",
            name,
            f"Cannot bind query parameter. Field '{name}' could not be found in request message.",
        )


def _set(request: Any, path_field: str, resource: str) -> None:
    *parents, leaf = path_field.split(".")
    target = request
    for parent in parents:
        target = getattr(target, parent)
    setattr(target, leaf, resource)


def _buffer(
    api: Api,
    call: rest_routes.BufferCall,
    environ: WSGIEnvironment,
    parameters: Iterable[tuple[str, str]],
) -> Any:
    problems = Problems()
    _refuse_parameters(parameters, problems)
    value = rest_json.parse(_body(environ, _MAX_BODY_BYTES))
    body = httpbody_pb2.HttpBody()
    if not isinstance(value, dict):
        problems.unknown("", "", "Root element must be a message.")
    else:
        for name, item in value.items():
            if name != "body":
                problems.unknown("", name)
            elif item is not None:
                rest_json.read(body, item, "body", problems)
    problems.check()
    return task_methods.buffer_task(api, call.queue, call.task_id, body.data, body.content_type)
