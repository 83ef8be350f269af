"""The testbed, its task queue stub and queueinfo answer as Google's SDK does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity.test_taskqueue import comparable

if TYPE_CHECKING:
    from tests.parity.conftest import Side

SHOWN = 'stub = bed.get_stub("taskqueue")\n'

STUB = """
stub.GetQueues()
stub.GetTasks("default")
stub.GetTasks("nope")
stub.FlushQueue("nope"), stub.DeleteTask("nope", "a"), stub.DeleteTask("default", "a")
taskqueue.add(); stub.GetTasks("default")
taskqueue.add(); stub.GetQueues()
taskqueue.add(url="/x", params={"b": "2"}, headers={"X-One": "1"}, countdown=100); stub.GetTasks("default")
taskqueue.add(url="/x", params={"b": "2"}, countdown=100); stub.get_filtered_tasks()
taskqueue.add(payload=b"\\xff\\x00", headers={"Content-Type": "text/x"}, name="n"); stub.GetTasks("default")
taskqueue.add(payload=b"\\xff\\x00", headers={"Content-Type": "text/x"}, name="n"); stub.get_filtered_tasks()
taskqueue.add(payload="text", method="PUT"); stub.GetTasks("default")
taskqueue.add(url="/get", method="GET", params={"q": ["1", "2"]}); stub.GetTasks("default")
taskqueue.add(url="/get", method="GET", params={"q": ["1", "2"]}); stub.get_filtered_tasks()
taskqueue.add(url="/get", method="HEAD"); stub.get_filtered_tasks()
taskqueue.add(url="/del", method="DELETE"); stub.GetTasks("default")
taskqueue.add(url="/x", target="v2.svc"); stub.GetTasks("default")
taskqueue.add(url="/x", headers={"Host": "h.example.com"}); stub.GetTasks("default")
taskqueue.add(url="/x", headers={"X-A": ["1", "2"]}); stub.GetTasks("default")
taskqueue.add(url="/x", headers={"X-A": ["1", "2"]}); stub.get_filtered_tasks()
namespace_manager.set_namespace("ns"); taskqueue.add(url="/x"); stub.GetTasks("default")
Queue().add(Task(url="/x", dispatch_deadline_usec=20000000)); stub.GetTasks("default")
Queue().add(Task(url="/x", retry_options=TaskRetryOptions(task_retry_limit=2))); stub.GetTasks("default")
taskqueue.add(url="/x", eta=datetime.datetime(2023, 11, 14, 22, 13, 20, 999999)); stub.GetTasks("default")
taskqueue.add(url="/x", eta=datetime.datetime(2023, 11, 1)); stub.GetTasks("default")
taskqueue.add(url="/x", eta=datetime.datetime(2023, 11, 20, 1, 2, 3)); stub.GetQueues()
taskqueue.add(url="/x", countdown=30 * 86400); stub.GetTasks("default")
taskqueue.add(url="/x", countdown=30 * 86400 + 1)
[taskqueue.add(url="/x", name=n) for n in "cab"]; [t["name"] for t in stub.GetTasks("default")]
[taskqueue.add(url="/x", name=n, countdown=c) for n, c in zip("cab", (1, 9, 5))]; [t.name for t in stub.get_filtered_tasks()]
[taskqueue.add(url="/x") for _ in range(11)]; [t["name"] for t in stub.GetTasks("default")]
taskqueue.add(url="/one", name="a"); taskqueue.add(url="/two", name="b"); [[t.name for t in stub.get_filtered_tasks(**f)] for f in ({"url": "/one"}, {"url": "/on"}, {"url": ""}, {"name": "b"}, {"name": ""}, {"queue_names": "default"}, {"queue_names": ["default", "nope"]}, {"queue_names": []}, {"queue_names": "nope"}, {"url": "/one", "name": "b"})]
taskqueue.add(name="a"); stub.DeleteTask("default", "a"); taskqueue.add(name="a").name
taskqueue.add(name="a"); stub.FlushQueue("default"); taskqueue.add(name="a").name
taskqueue.add(name="a"); Queue().delete_tasks(Task(name="a")); stub.FlushQueue("default"); taskqueue.add(name="a").name
taskqueue.add(name="a"); Queue().delete_tasks(Task(name="a")); taskqueue.add(name="a")
taskqueue.add(name="a"); Queue().purge(); taskqueue.add(name="a")
taskqueue.add(); stub.Clear(); stub.GetQueues()
taskqueue.add(); stub.Clear(); stub.GetTasks("default")
taskqueue.add(); stub.Clear(); taskqueue.add().name, [q["name"] for q in stub.GetQueues()]
Queue().add([Task(url="/1"), Task(url="/2", name="a"), Task(url="/3")]); taskqueue.add().name
taskqueue.add(name="a"); [t.name for t in Queue().add([Task(name="c"), Task(name="b")])]
Queue().add([Task(), Task(countdown=31 * 86400)])
taskqueue.add(queue_name="nope")
Queue("nope").purge()
Queue("nope").delete_tasks(Task(name="a"))
bed.init_taskqueue_stub(); taskqueue.add(); bed.init_taskqueue_stub(); taskqueue.add().name
bed.init_taskqueue_stub(_all_queues_valid=True); taskqueue.add(queue_name="x"); bed.get_stub("taskqueue").GetQueues()
bed.init_taskqueue_stub(_all_queues_valid=True); bed.get_stub("taskqueue").GetTasks("x")
bed.init_taskqueue_stub(nope=1)
bed.init_taskqueue_stub(default_http_server="example.org"); taskqueue.add(target="svc"); bed.get_stub("taskqueue").GetTasks("default")
bed.init_taskqueue_stub(enable=False); bed.get_stub("taskqueue")
bed.get_stub("nope")
bed.get_stub("search")
stub.StartBackgroundExecution(), stub.Shutdown()
"""  # noqa: E501 - one case a line

TESTBED = """
import os; {k: os.environ.get(k) for k in ("APPLICATION_ID", "GAE_APPLICATION", "GOOGLE_CLOUD_PROJECT", "AUTH_DOMAIN", "HTTP_HOST", "CURRENT_MODULE_ID", "CURRENT_VERSION_ID", "REQUEST_ID_HASH", "REQUEST_LOG_ID", "SERVER_NAME", "SERVER_SOFTWARE", "SERVER_PORT", "USER_EMAIL", "USER_ID", "DEFAULT_VERSION_HOSTNAME")}
import os; bed.setup_env(app_id="my-app-1", overwrite=True); [os.environ[k] for k in ("APPLICATION_ID", "GAE_APPLICATION", "GOOGLE_CLOUD_PROJECT")]
import os; bed.setup_env(app_id="s~my-app-1", overwrite=True); [os.environ[k] for k in ("APPLICATION_ID", "GAE_APPLICATION", "GOOGLE_CLOUD_PROJECT")]
import os; bed.setup_env(app_id="my-app-1"); os.environ["GOOGLE_CLOUD_PROJECT"]
import os; bed.setup_env(user_email="a@b", My_x="1", overwrite=True); os.environ["USER_EMAIL"], os.environ["MY_X"]
import os; bed.setup_env(user_email="a@b", My_x="1"); os.environ["USER_EMAIL"], os.environ["MY_X"]
bed.setup_env(app_id="_", overwrite=True)
bed.setup_env(app_id="a" * 31, overwrite=True)
bed.setup_env(app_id="MyApp-1", overwrite=True)
bed.setup_env(app_id="1my-app", overwrite=True)
bed.setup_env(app_id="my-app-", overwrite=True)
bed.setup_env(app_id="example.com:my-app", overwrite=True)
from google.appengine.ext import testbed; testbed.Testbed().get_stub("taskqueue")
from google.appengine.ext import testbed; testbed.Testbed().deactivate()
from google.appengine.ext import testbed; testbed.SUPPORTED_SERVICES, testbed.INIT_STUB_METHOD_NAMES
from google.appengine.ext import testbed; {n: v for n, v in vars(testbed).items() if n.endswith("_SERVICE_NAME")}
from google.appengine.ext import testbed; testbed.DEFAULT_ENVIRONMENT.keys() - {"GAE_RUNTIME"} == set() or sorted(testbed.DEFAULT_ENVIRONMENT)
"""  # noqa: E501 - one case a line

QUEUE_YAML = """
queue:
- name: mail
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
- name: paused
  rate: 0
- name: pulled
  mode: pull
- name: daily
  rate: 2000/d
  retry_parameters:
    task_retry_limit: 0
"""
CONFIGURED = """
bed.get_stub("taskqueue").GetQueues()
taskqueue.add(queue_name="mail"), bed.get_stub("taskqueue").GetTasks("mail")
taskqueue.add(queue_name="mali")
taskqueue.add(queue_name="pulled")
[taskqueue.add(queue_name=n) for n in ("paused", "mail", "default")]; [t.name for t in bed.get_stub("taskqueue").get_filtered_tasks()]
Queue("mail").add(Task(countdown=5)); bed.get_stub("taskqueue").GetQueues()
"""  # noqa: E501 - one case a line

PARSERS = {
    "ParseRate": ["0", "5/s", "5.5/m", "1/h", "1/d", "5/", "5/sm", "5", "x/s", "-1/s", "", "5/x",
                  " 5/s", "1e3/s", "5/s/m"],
    "ParseTotalStorageLimit": ["100", "120M", "1K", "1.5G", "1T", "5B", "x", "", "12X", "1.5",
                               "-1M", "M", " 5M "],
    "ParseTaskAgeLimit": ["1.5h", "-1s", "5", "5s", "2d", "3m", "", "xs", "0s", "0.5s", "1x"],
}  # fmt: skip
RETRIES = [
    {}, {"min_backoff_seconds": 4000}, {"max_backoff_seconds": 0.05}, {"task_age_limit": "0s"},
    {"task_age_limit": "5h", "task_retry_limit": 3}, {"min_backoff_seconds": -1},
    {"max_doublings": -1}, {"min_backoff_seconds": 5, "max_backoff_seconds": 1},
    {"task_retry_limit": -1}, {"max_doublings": 0},
]  # fmt: skip
# Both sides read or both refuse; the words are our own.
DOCUMENTS = [
    "", "queue:", "queue:\n- name: a\n  rate: 5/s", "queue:\n- name: a", 'queue:\n- name: ""',
    "queue:\n- name: a_b", "queue:\n- rate: 5/s", "queue:\n- name: a\n  rate: 5",
    "queue:\n- name: a\n  rate: 0", "queue:\n- name: a\n  mode: x", "queue:\n- name: a\n  foo: 1",
    "foo: 1", "queue:\n- name: a\n  retry_parameters:\n    task_age_limit: 5",
    "queue:\n- name: a\n  retry_parameters:\n    task_age_limit: 5d\n    task_retry_limit: 7",
    "---\nqueue:\n---\nqueue:\n", "queue: [", "queue:\n- name: a\n  bucket_size: x",
    "queue:\n- name: a\n  max_dispatches_per_second: 5",
    "queue:\n- name: a\n  acl:\n  - user_email: x@y\n  - writer_email: z",
    "queue:\n- name: a\n  target: A", "queue:\n- name: a\n  target: v.s",
    "resume_paused_queues: True\ntotal_storage_limit: 5M\napplication: x",
    "resume_paused_queues: yes", "queue:\n- name: a\n- name: a", "total_storage_limit: 5X",
    "queue: x", "queue:\n- name: a\n  rate: 5/s\n  rate: 6/s", "application: 5_x",
    "queue:\n- name: 5\n  retry_parameters:\n    task_retry_limit: 1.5",
    "queue:\n- name: a\n  retry_parameters: x", "queue:\n- name: a\n  rate:\n",
]  # fmt: skip
READ = """
from google.appengine.api import queueinfo
def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "ToDict"):
        return {{name: plain(item) for name, item in vars(value).items()}}
    return value
try:
    seen = plain(queueinfo.LoadSingleQueue({document!r}))
except Exception as error:
    seen = [type(error).__name__, getattr(error, "line", None)]
    names = [kind.__name__ for kind in type(error).__mro__]
seen if isinstance(seen, dict) else [seen[0], names[:-3]]
"""


def masked(seen: Any) -> Any:
    """Return an answer without ETAs relative to now, which the SDK takes from another clock."""
    if isinstance(seen, dict):
        return {name: masked(value) for name, value in seen.items()}
    if not isinstance(seen, list):
        return seen
    if len(seen) == 2 and seen[0] == "'eta_delta'":
        return [seen[0], seen[1] == "''"]
    return [masked(item) for item in seen]


def assert_same(sdk: Side, ours: Side, code: str, **surroundings: Any) -> None:
    theirs, mine = sdk.observe(code, **surroundings), ours.observe(code, **surroundings)
    assert masked(comparable(mine, theirs)) == masked(comparable(theirs, mine))


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def statements(line: str) -> str:
    """Return a case with its last expression on a line of its own."""
    first, _, last = line.rpartition("; ")
    return f"{first}\n{last}" if first else line


@pytest.mark.parametrize("case", lines(STUB))
def test_same_stub(case: str, sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, SHOWN + statements(case), testbed=True)


@pytest.mark.parametrize("case", lines(TESTBED))
def test_same_testbed(case: str, sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, statements(case), testbed=True)


@pytest.mark.parametrize("case", lines(CONFIGURED))
def test_same_queues_of_a_file(case: str, sdk: Side, ours: Side, tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text(QUEUE_YAML)
    start = f"bed.init_taskqueue_stub(root_path={str(tmp_path)!r})\n"
    assert_same(sdk, ours, start + statements(case), testbed=True)


@pytest.mark.parametrize("case", lines(CONFIGURED))
def test_same_queues_of_a_parser_set_on_the_stub(case: str, sdk: Side, ours: Side) -> None:
    start = (
        "from google.appengine.api import queueinfo\n"
        "bed.init_taskqueue_stub(root_path='/app')\n"
        "bed.get_stub('taskqueue').queue_yaml_parser = (\n"
        f"    lambda root_path: queueinfo.LoadSingleQueue({QUEUE_YAML!r}))\n"
    )
    assert_same(sdk, ours, start + statements(case), testbed=True)


@pytest.mark.parametrize(
    ("function", "text"), [(name, text) for name, texts in PARSERS.items() for text in texts]
)
def test_same_parsers(function: str, text: str, sdk: Side, ours: Side) -> None:
    code = f"from google.appengine.api import queueinfo\nqueueinfo.{function}({text!r})"
    assert_same(sdk, ours, code)


@pytest.mark.parametrize("parameters", RETRIES)
def test_same_retry_parameters(parameters: dict[str, Any], sdk: Side, ours: Side) -> None:
    code = (
        "from google.appengine.api import queueinfo\n"
        f"t = queueinfo.TranslateRetryParameters(queueinfo.RetryParameters(**{parameters!r}))\n"
        "{name: getattr(t, name) for name in ('retry_limit', 'age_limit_sec', 'min_backoff_sec',"
        " 'max_backoff_sec', 'max_doublings') if t.HasField(name)}"
    )
    assert_same(sdk, ours, code)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_same_document(document: str, sdk: Side, ours: Side) -> None:
    assert_same(sdk, ours, READ.format(document=document))


_tasks = st.lists(
    st.fixed_dictionaries(
        {"url": st.sampled_from(["/a", "/b"]), "queue": st.sampled_from(["q", "r", "default"])},
        optional={
            "countdown": st.integers(-5, 100),
            "payload": st.binary(max_size=20),
            "headers": st.dictionaries(st.sampled_from(["X-A", "Content-Type"]), st.just("v")),
        },
    ),
    max_size=6,
)
_filters = st.fixed_dictionaries(
    {},
    optional={
        "url": st.sampled_from(["/a", "/c"]),
        "name": st.sampled_from(["task1", "task2"]),
        "queue_names": st.sampled_from(["q", ["r", "q"], [], "nope"]),
    },
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tasks=_tasks, filters=_filters)
def test_same_view_of_the_same_tasks(
    tasks: list[dict[str, Any]], filters: dict[str, Any], sdk: Side, ours: Side
) -> None:
    code = (
        "bed.init_taskqueue_stub(_all_queues_valid=True)\n"
        "stub = bed.get_stub('taskqueue')\n"
        f"for task in {tasks!r}:\n"
        "    queue = task.pop('queue')\n"
        "    taskqueue.add(queue_name=queue, **task)\n"
        f"stub.GetQueues(), stub.get_filtered_tasks(**{filters!r}), "
        "[stub.GetTasks(queue['name']) for queue in stub.GetQueues()]"
    )
    assert_same(sdk, ours, code, testbed=True)
