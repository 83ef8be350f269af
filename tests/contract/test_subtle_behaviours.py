"""What emulators of Cloud Tasks most often get wrong, and which tests hold each of it here.

The numbers are those of the list that the local service was written by. A test that holds but one
of them has its number in its name.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
QUEUES = "contract/cloud_tasks_api/test_queues.py"
TASKS = "contract/cloud_tasks_api/test_tasks.py"
BATCHES = "contract/cloud_tasks_api/test_batches.py"
REST = "local/fronts/test_rest_front.py"
DISPATCHING = "local/test_dispatching.py"
SERVICE = "local/test_service.py"
HEADERS = "core/test_headers.py"
RETRY = "core/test_retry.py"

HELD_BY: dict[int, tuple[tuple[str, str], ...]] = {
    1: (
        (TASKS, "test_1_the_name_of_a_deleted_task_stays_reserved"),
        (SERVICE, "test_1_a_name_stays_reserved_as_its_queue_has_it"),
        (SERVICE, "test_an_ended_task_and_one_never_there_have_different_texts"),
    ),
    2: (
        (QUEUES, "test_2_and_3_missing_queues_have_three_texts"),
        (SERVICE, "test_a_deleted_queues_name_stays_reserved_for_create_but_not_for_update"),
    ),
    3: ((QUEUES, "test_2_and_3_missing_queues_have_three_texts"),),
    4: ((TASKS, "test_4_a_schedule_time_in_the_past_becomes_now"),),
    5: (
        (TASKS, "test_5_the_size_limit_is_on_the_whole_task_as_stored"),
        ("core/test_limits.py", "test_a_stored_task_weighs_what_its_protobuf_does"),
    ),
    6: ((TASKS, "test_6_the_headers_that_the_service_adds_are_stored"),),
    7: ((TASKS, "test_7_only_app_engine_targets_get_a_content_type"),),
    8: (
        (TASKS, "test_6_the_headers_that_the_service_adds_are_stored"),
        (TASKS, "test_8_an_agent_of_the_callers_is_replaced_or_appended_to"),
    ),
    9: ((TASKS, "test_9_a_created_task_comes_back_in_the_basic_view"),),
    10: (
        (HEADERS, "test_the_recorded_sequence"),
        (DISPATCHING, "test_the_recorded_header_sequence"),
        ("local/test_targets.py", "test_the_recorded_sequence_of_headers"),
    ),
    11: (
        (HEADERS, "test_after_an_attempt_without_a_reply"),
        ("local/test_targets.py", "test_a_target_that_never_answers_is_told_of_the_timeout"),
    ),
    12: ((DISPATCHING, "test_a_failed_task_is_tried_again_after_its_backoff_from_the_response"),),
    13: ((RETRY, "test_the_worked_schedules_hold_exactly"),),
    14: (
        (RETRY, "test_with_both_limits_both_must_be_passed"),
        (DISPATCHING, "test_with_both_limits_a_task_is_tried_while_either_allows_it"),
    ),
    15: (
        (RETRY, "test_when_a_task_is_dropped"),
        ("queues/test_deployed.py", "test_a_retry_limit_is_one_less_than_attempts"),
    ),
    16: (
        (DISPATCHING, "test_16_the_age_of_a_task_counts_from_its_first_attempt"),
        (SERVICE, "test_a_task_beyond_its_queues_retention_is_dropped_and_kept_aside"),
    ),
    17: (
        (TASKS, "test_17_running_a_task_tells_of_its_dispatch_before_the_reply"),
        (DISPATCHING, "test_run_task_passes_by_schedule_time_pause_and_rate"),
        (DISPATCHING, "test_a_failed_run_task_is_scheduled_from_the_moment_of_the_call"),
    ),
    18: ((QUEUES, "test_18_a_purge_takes_what_was_there_and_leaves_the_state"),),
    19: (
        (QUEUES, "test_it_creates_the_queue_that_is_not_there"),
        (QUEUES, "test_an_empty_mask_means_every_field"),
        (QUEUES, "test_a_path_that_is_named_but_not_sent_is_cleared"),
        (QUEUES, "test_state_purge_time_and_burst_size_are_not_the_callers"),
    ),
    20: (
        (BATCHES, "test_those_that_succeed_come_back_in_order"),
        (BATCHES, "test_deletes_number_their_states_otherwise"),
        (BATCHES, "test_a_delete_of_which_nothing_succeeded_was_aborted"),
    ),
    21: (
        ("core/test_outcome.py", "test_what_slows_a_queue_down"),
        ("local/test_throttling.py", "test_an_app_engine_service_slows_its_queue_by_503_alone"),
        ("local/test_http_transport.py", "test_an_http_target_may_send_a_task_on"),
        ("local/test_http_transport.py", "test_an_app_engine_service_is_not_followed"),
    ),
    22: (
        (QUEUES, "test_22_parts_of_an_override_that_clear_are_kept_apart_from_those_left_out"),
        (
            "local/test_queue_routing.py",
            "test_tasks_that_were_there_before_are_sent_by_the_queues_routing",
        ),
    ),
    23: (
        (
            "acceptance/test_gcloud.py",
            "test_a_queue_that_is_left_out_is_paused_and_one_listed_again_runs",
        ),
        (
            "queues/test_deployed.py",
            "test_a_written_zero_is_deployed_as_the_default_and_said",
        ),
    ),
    24: (
        (REST, "test_24_enums_are_read_as_names_and_numbers"),
        (REST, "test_24_both_alphabets_of_base64_are_read"),
    ),
    25: (
        (TASKS, "test_25_automatic_ids_are_digits"),
        (HEADERS, "test_the_eta_is_decimal_seconds"),
        (SERVICE, "test_schedule_times_are_kept_to_the_microsecond"),
    ),
}


def test_the_list_is_whole() -> None:
    assert sorted(HELD_BY) == list(range(1, 26))


@pytest.mark.parametrize("number", HELD_BY)
def test_each_is_held_by_tests_that_there_are(number: int) -> None:
    for file, name in HELD_BY[number]:
        tree = ast.parse((TESTS / file).read_text("utf-8"))
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in found, f"{file} has no {name}"
