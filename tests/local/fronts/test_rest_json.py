"""JSON into messages of every shape that the API has, and some that it has not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.iam.v1 import policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from appengine_compat.local.fronts import rest_json
from appengine_compat.local.fronts.rpc_status import BadRequestError
from appengine_compat.local.fronts.versions import V2, V2BETA3


def read(message: Any, value: Any) -> Any:
    problems = rest_json.Problems()
    rest_json.read(message, value, "", problems)
    problems.check()
    return message


def refused(message: Any, value: Any) -> str:
    with pytest.raises(BadRequestError) as caught:
        read(message, value)
    return caught.value.message


def test_lists_of_texts_and_of_messages() -> None:
    request = V2.message("BatchDeleteTasksRequest")()
    assert list(read(request, {"names": ["a", "b"]}).names) == ["a", "b"]
    policy = read(policy_pb2.Policy(), {"bindings": [{"role": "r", "members": ["m"]}]})
    assert policy.bindings[0].members == ["m"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"names": "a"}, "Invalid value at 'names' (TYPE_STRING), \"a\""),
        ({"names": ["a", 5]}, "Invalid value at 'names[1]' (TYPE_STRING), 5"),
        ({"names": [None]}, "Invalid value at 'names[0]' (TYPE_STRING), null"),
    ],
)
def test_lists_that_do_not_fit(value: Any, message: str) -> None:
    assert refused(V2.message("BatchDeleteTasksRequest")(), value) == message


def test_places_in_lists_are_told() -> None:
    request = V2.message("BatchCreateTasksRequest")()
    requests = [{"task": {}}, {"task": {"colour": 1}}, []]
    assert refused(request, {"requests": requests}).split("\n") == [
        "Invalid JSON payload received. Unknown name \"colour\" at 'requests[1].task': Cannot find "
        "field.",
        "Invalid value at 'requests[2]' "
        "(type.googleapis.com/google.cloud.tasks.v2.CreateTaskRequest), []",
    ]


def test_maps_of_messages() -> None:
    metadata = V2.message("BatchCreateTasksMetadata")
    read_one = read(metadata(), {"failedRequests": {"3": {"code": 5}}})
    assert read_one.failed_requests[3].code == 5
    message = refused(metadata(), {"failedRequests": {"x": {"code": 5}}})
    assert message == "Invalid value at 'failed_requests[0].key' (TYPE_INT32), \"x\""


def test_any_message_and_other_well_known_ones() -> None:
    kind = "type.googleapis.com/google.protobuf.Struct"
    value = {"done": "true", "response": {"@type": kind, "value": {"a": 1}}}
    operation = read(operations_pb2.Operation(), value)
    assert operation.done is True
    packed = struct_pb2.Struct()
    assert operation.response.Unpack(packed)
    assert packed["a"] == 1
    message = refused(operations_pb2.Operation(), {"response": {"@type": "nonsense"}})
    assert message.startswith(
        "Invalid value at 'response' (type.googleapis.com/google.protobuf.Any)"
    )


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("false", False), (False, False)])
def test_booleans(value: Any, expected: bool) -> None:
    assert read(operations_pb2.Operation(), {"done": value}).done is expected


@pytest.mark.parametrize("value", [1, "yes", [], 0])
def test_what_is_no_boolean(value: Any) -> None:
    assert refused(operations_pb2.Operation(), {"done": value}).startswith(
        "Invalid value at 'done' (TYPE_BOOL), "
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0.5, 0.5), ("2.5", 2.5), ("Infinity", math.inf), ("-Infinity", -math.inf)],
)
def test_numbers_with_fractions(value: Any, expected: float) -> None:
    rates = read(V2.message("RateLimits")(), {"maxDispatchesPerSecond": value})
    assert rates.max_dispatches_per_second == expected


@pytest.mark.parametrize("value", [True, "fast", "\u0661", [], 10**400])
def test_what_is_no_number(value: Any) -> None:
    message = refused(V2.message("RateLimits")(), {"maxDispatchesPerSecond": value})
    assert message.startswith("Invalid value at 'max_dispatches_per_second' (TYPE_DOUBLE), ")


def test_whole_numbers_may_be_written_with_a_fraction_of_nothing() -> None:
    retry = read(V2.message("RetryConfig")(), {"maxAttempts": 3.0, "maxDoublings": "4"})
    assert (retry.max_attempts, retry.max_doublings) == (3, 4)


def test_masks_in_bodies() -> None:
    request = V2BETA3.message("GetQueueRequest")()
    assert list(read(request, {"readMask": "stats,retryConfig.maxAttempts"}).read_mask.paths) == [
        "stats",
        "retry_config.max_attempts",
    ]
    assert "'read_mask'" in refused(V2BETA3.message("GetQueueRequest")(), {"readMask": ["stats"]})


def test_a_field_by_both_its_names_is_refused() -> None:
    value = {"maxAttempts": 3, "max_attempts": 4}
    assert refused(V2.message("RetryConfig")(), value) == (
        "Invalid value at 'max_attempts' (TYPE_INT32), it is already set as 'maxAttempts'."
    )


def test_numbers_without_a_sign() -> None:
    assert read(wrappers_pb2.UInt64Value(), {"value": str(2**64 - 1)}).value == 2**64 - 1
    assert "TYPE_UINT64" in refused(wrappers_pb2.UInt64Value(), {"value": -1})


def test_long_values_are_told_in_short() -> None:
    message = refused(V2.message("RetryConfig")(), {"maxAttempts": "x" * 5000})
    assert len(message) < 300
    assert message.endswith("...")


def test_names_for_json() -> None:
    assert rest_json.json_name("dispatch_deadline") == "dispatchDeadline"
    assert rest_json.mask_paths(" a.bC , d_e,") == ["a.b_c", "d_e"]
