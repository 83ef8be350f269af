"""Reading a queue.yaml: what is understood, and where and how a fault is told."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.errors import ConfigError, QueueYamlError
from appengine_compat.queues import queue_yaml
from appengine_compat.queues.queue_yaml import QueueEntry, RetryParameters, parse


def fault_of(text: str) -> QueueYamlError:
    with pytest.raises(QueueYamlError) as caught:
        parse(textwrap.dedent(text), "q.yaml")
    return caught.value


def one_queue(*lines: str) -> str:
    return "\n".join(["queue:", "- name: mail", *(f"  {line}" for line in lines)]) + "\n"


def test_every_field_is_read() -> None:
    file = parse(
        textwrap.dedent("""\
            application: guestbook
            total_storage_limit: 120M
            resume_paused_queues: False
            queue:
            - name: mail
              mode: push
              rate: 30/m
              bucket_size: 40
              max_concurrent_requests: 7
              target: v1.worker
              retry_parameters:
                task_retry_limit: 4
                task_age_limit: 1.5h
                min_backoff_seconds: 0.5
                max_backoff_seconds: 200
                max_doublings: 3
            - name: pulled
              mode: pull
              acl:
              - user_email: a@example.com
              - writer_email: b@example.com
            """)
    )
    assert file.application == "guestbook"
    assert file.total_storage_limit == "120M"
    assert file.resume_paused_queues is False
    mail, pulled = file.queues
    assert mail == QueueEntry(
        name="mail",
        mode="push",
        rate=0.5,
        rate_text="30/m",
        bucket_size=40,
        max_concurrent_requests=7,
        target="v1.worker",
        retry_parameters=RetryParameters(
            task_retry_limit=4,
            task_age_limit_seconds=5400,
            min_backoff_seconds=0.5,
            max_backoff_seconds=200.0,
            max_doublings=3,
        ),
        line=5,
    )
    assert pulled.is_pull
    assert pulled.acl == (("user_email", "a@example.com"), ("writer_email", "b@example.com"))


def test_what_is_not_said_is_none() -> None:
    (entry,) = parse(one_queue("rate: 5/s")).queues
    assert entry == QueueEntry(name="mail", rate=5.0, rate_text="5/s", line=2)
    assert not entry.is_pull


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("0", 0.0), ("0/s", 0.0), ("5/s", 5.0), ("1/m", 0.016666667), ("0.5/h", 0.000138889),
     ("500/s", 500.0), ("1./d", 0.000011574), ("30000/m", 500.0)],
)  # fmt: skip
def test_rates(text: str, per_second: float) -> None:
    assert parse(one_queue(f"rate: {text}")).queues[0].rate == per_second


@pytest.mark.parametrize("text", ["queue:\n", "queue: []\n", "queue: ~\n", "application: x\n"])
def test_a_file_without_queues_has_none(text: str) -> None:
    assert parse(text).queues == ()


def test_names_are_text_whatever_yaml_makes_of_them() -> None:
    names = [parse(f"queue:\n- name: {n}\n  rate: 1/s").queues[0].name for n in ("on", "12", "no")]
    assert names == ["on", "12", "no"]


FAULTS = [
    # what stands in the file after "- name: mail" (line 3, column 3), the place, words of the fault
    ("rate: 5", (3, 9), "rate is '5'; it is a number with /s, /m, /h or /d, such as 5/s, or 0"),
    ("rate: -1/s", (3, 9), "rate is '-1/s'"),
    ("rate: 501/s", (3, 9), "the most is 500/s"),
    ("rate: 5/s\n  bucket_size: 501", (4, 16), "from 1 to 500"),
    ("rate: 5/s\n  bucket_size: -1", (4, 16), "from 1 to 500"),
    ("rate: 5/s\n  bucket_size: many", (4, 16), "it is a whole number"),
    ("rate: 5/s\n  mode: push-ish", (4, 9), "it is push or pull"),
    ("rate: 5/s\n  target: A.b.c.d", (4, 11), "a service, or version.service"),
    ("rate: 5/s\n  rate: 6/s", (4, 3), "'rate' twice"),
    ("rate:", (3, 8), "rate has no value"),
    ("rate: [5/s]", (3, 9), "rate is a list; it is a single value"),
    ("bucket_size: 5", (2, 3), "queue 'mail': a push queue needs a rate"),
    ("rate: 5/s\n  bucketsize: 5", (4, 3), "did you mean bucket_size?"),
    ("rate: 5/s\n  max_attempts: 5", (4, 3), "task_retry_limit under retry_parameters"),
    ("rate: 5/s\n  max_concurrent_dispatches: 5", (4, 3), "that is max_concurrent_requests"),
    ("rate: 5/s\n  task_age_limit: 5s", (4, 3), "it belongs under retry_parameters"),
    ("rate: 5/s\n  colour: red", (4, 3), "it has name, rate, mode"),
    ("mode: pull\n  rate: 5/s", (4, 9), "a pull queue has no rate"),
    ("mode: pull\n  retry_parameters: {max_doublings: 1}", (4, 37), "a pull queue has no max_d"),
    ("rate: 5/s\n  retry_parameters: 3", (4, 21), "it is a mapping"),
    ("rate: 5/s\n  retry_parameters:\n    task_retry_limit: -1", (5, 23), "the least is 0"),
    ("rate: 5/s\n  retry_parameters:\n    task_age_limit: 5", (5, 21), "such as 2d"),
    ("rate: 5/s\n  retry_parameters:\n    task_age_limit: 0.5s", (5, 21), "the least is 1s"),
    ("rate: 5/s\n  retry_parameters:\n    min_backoff_seconds: -2", (5, 26), "the least is 0"),
    ("rate: 5/s\n  retry_parameters: {min_backoff_seconds: 9, max_backoff_seconds: 3}", (4, 43),
     "min_backoff_seconds (9) is greater than max_backoff_seconds (3)"),
    ("rate: 5/s\n- name: mail\n  rate: 1/s", (4, 3), "is there twice (first on line 2)"),
    ("rate: 5/s\n- rate: 1/s", (4, 3), "a queue has no name"),
    ("rate: 5/s\n- name: under_score", (4, 9), "1 to 100 letters, digits and hyphens"),
    ("rate: 5/s\n- mail", (4, 3), "a queue is a single value; it is a mapping"),
    ("rate: 5/s\n  bucket_size: " + "9" * 5000, (4, 16), "it is a whole number"),
    ("rate: 5/s\n  retry_parameters: {task_age_limit: " + "9" * 400 + "d}", (4, 38), "as 2d"),
    ("rate: 5/s\n  retry_parameters: {min_backoff_seconds: 1e999}", (4, 43), "it is a number"),
    ("rate: 5/s\n  acl:\n  - email: x", (5, 5), "did you mean user_email?"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "place", "words"), FAULTS)
def test_a_fault_is_told_with_its_line_and_column(
    lines: str, place: tuple[int, int], words: str
) -> None:
    error = fault_of(f"queue:\n- name: mail\n  {lines}\n")
    assert (error.line, error.column) == place
    assert words in error.reason
    assert str(error).startswith(f"q.yaml:{place[0]}:{place[1]}: ")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 0, "is empty; begin it with 'queue:'"),
        ("# nothing\n", 0, "is empty"),
        ("queue: [\n", 2, "is not YAML: while parsing a flow node"),
        ("queue:\n\t- name: a\n", 2, "is not YAML"),
        ("queue:\n- name: \x01\n", 2, "is not YAML: special characters are not allowed"),
        ("queue:\n---\nqueue:\n", 2, "single document"),
        ("- name: a\n", 1, "queue.yaml is a list"),
        ("queue:\n  name: a\n", 2, "a list of queues, each beginning with '- name:'"),
        ("queues:\n- name: a\n", 1, "did you mean queue?"),
        ("resume_paused_queues: perhaps\n", 1, "it is True or False"),
        ("total_storage_limit: 12X\n", 1, "such as 120M"),
        ("? [a]\n: b\n", 1, "a key of queue.yaml is a list"),
    ],
)
def test_a_broken_file_is_told(text: str, line: int, words: str) -> None:
    error = fault_of(text)
    assert error.line == line
    assert words in error.reason


def test_a_missing_file_names_the_setting(tmp_path) -> None:
    with pytest.raises(QueueYamlError, match="there is no such file; set APPENGINE_COMPAT_QUEUE_Y"):
        queue_yaml.read(tmp_path / "queue.yaml")


def test_a_folder_is_not_a_file(tmp_path) -> None:
    with pytest.raises(QueueYamlError, match="cannot be read"):
        queue_yaml.read(tmp_path)


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path) -> None:
    path = tmp_path / "queue.yaml"
    path.write_bytes(b"queue:\n# caf\xe9\n")
    with pytest.raises(QueueYamlError, match=r"queue\.yaml:2: is not UTF-8 text"):
        queue_yaml.read(path)


def test_a_byte_order_mark_is_no_fault(tmp_path) -> None:
    path = tmp_path / "queue.yaml"
    path.write_bytes(b"\xef\xbb\xbfqueue:\r\n- name: a\r\n  rate: 1/s\r\n")
    assert [entry.name for entry in queue_yaml.read(path).queues] == ["a"]


@pytest.mark.parametrize(
    "name", ["queue.yaml", "queue.yml", "WEB-INF/appengine-generated/queue.yaml"]
)
def test_a_folders_file_is_found(name: str, tmp_path) -> None:
    assert queue_yaml.find(tmp_path) is None
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("queue:\n")
    assert queue_yaml.find(tmp_path) == path


@given(st.text(max_size=60) | st.text("queue: -\nnamertes/5&*!<{[]}#'\"", max_size=80))
def test_no_text_makes_any_other_error(text: str) -> None:
    with contextlib.suppress(QueueYamlError):
        parse(text)


def test_without_pyyaml_the_error_says_what_to_install(tmp_path) -> None:
    (tmp_path / "queue.yaml").write_text("queue:\n")
    script = (
        "import sys; sys.modules['yaml'] = None\n"
        "from appengine_compat.queues import queue_yaml\n"
        f"queue_yaml.read({str(tmp_path / 'queue.yaml')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert ConfigError.__name__ in done.stderr
    assert "needs PyYAML" in done.stderr
    assert "pip install 'appengine-compat[dev]'" in done.stderr


def test_importing_the_reader_loads_no_yaml() -> None:
    script = "import sys, appengine_compat.queues.queue_yaml; print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n"
