"""What is not of one task or queue: policies, keys, locations."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2
from google.cloud.location import locations_pb2
from google.iam.v1 import policy_pb2

from tests.contract.cloud_tasks_api.calls import (
    NO_QUEUE,
    refused,
)
from tests.contract.cloud_tasks_doors import LOCATION, QUEUE


def test_policies_are_kept_with_their_queue(door, client) -> None:
    assert client.get_iam_policy(request={"resource": QUEUE}) == policy_pb2.Policy(
        etag=b"\x00\x20\x01"
    )
    binding = policy_pb2.Binding(role="roles/cloudtasks.enqueuer", members=["user:a@b.c"])
    policy = policy_pb2.Policy(bindings=[binding])
    kept = client.set_iam_policy(request={"resource": QUEUE, "policy": policy})
    assert list(kept.bindings) == [binding]
    assert client.get_iam_policy(request={"resource": QUEUE}) == kept
    with refused(
        "ABORTED",
        "There were concurrent policy changes. Please retry the whole read-modify-write with "
        "exponential backoff.",
    ):
        client.set_iam_policy(
            request={"resource": QUEUE, "policy": policy_pb2.Policy(etag=b"another")}
        )
    client.delete_queue(name=QUEUE)
    with refused("NOT_FOUND", NO_QUEUE):
        client.get_iam_policy(request={"resource": QUEUE})
    door.clock.advance(86401)
    client.create_queue(parent=LOCATION, queue={"name": QUEUE})
    assert not client.get_iam_policy(request={"resource": QUEUE}).bindings


def test_permissions_are_all_there_and_none_without_the_queue(client) -> None:
    asked = ["cloudtasks.tasks.create", "cloudtasks.queues.get"]
    answer = client.test_iam_permissions(request={"resource": QUEUE, "permissions": asked})
    assert answer.permissions == asked
    missing = {"resource": f"{LOCATION}/queues/missing", "permissions": asked}
    assert not client.test_iam_permissions(request=missing).permissions
    with pytest.raises(exceptions.BadRequest, match="wildcard"):
        client.test_iam_permissions(request={"resource": QUEUE, "permissions": ["cloudtasks.*"]})


def test_the_key_of_a_location_is_remembered(door) -> None:
    name = f"{LOCATION}/cmekConfig"
    assert door.v2.get_cmek_config(name=name) == tasks_v2.CmekConfig(name=name)
    key = f"{LOCATION}/keyRings/r/cryptoKeys/k"
    config = tasks_v2.CmekConfig(name=name, kms_key=key)
    mask = {"paths": ["kms_key"]}
    assert door.v2.update_cmek_config(cmek_config=config, update_mask=mask) == config
    assert door.v2.get_cmek_config(name=name) == config
    cleared = tasks_v2.CmekConfig(name=name)
    assert door.v2.update_cmek_config(cmek_config=cleared, update_mask=mask) == cleared
    door.v2.update_cmek_config(cmek_config=config, update_mask={"paths": ["name"]})
    assert not door.v2.get_cmek_config(name=name).kms_key
    with pytest.raises(exceptions.BadRequest, match="colour"):
        door.v2.update_cmek_config(cmek_config=config, update_mask={"paths": ["colour"]})
    with pytest.raises(exceptions.BadRequest, match=r"CmekConfig\.kmsKey must be formatted"):
        door.v2.update_cmek_config(cmek_config={"name": name, "kms_key": "key"}, update_mask=mask)


def test_locations_are_the_servers_own_and_those_with_queues(door) -> None:
    other = "projects/p/locations/europe-west1"
    door.v2.create_queue(parent=other, queue={"name": f"{other}/queues/q"})
    found = door.v2.list_locations(locations_pb2.ListLocationsRequest(name="projects/p"))
    assert [location.location_id for location in found.locations] == ["us-central1", "europe-west1"]
    one = door.v2.get_location(locations_pb2.GetLocationRequest(name=other))
    assert one == found.locations[1]
    assert dict(one.labels) == {"cloud.googleapis.com/region": "europe-west1"}
