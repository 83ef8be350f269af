# ruff: noqa: E501 - one case a line
"""Calls of ``taskqueue`` whose answers must be those of Google's SDK."""

from __future__ import annotations

OUTSIDE: dict[str, object] = {}
APP = "app.example.com"
REQUEST = {"environment": {"HTTP_HOST": f"v1.{APP}", "DEFAULT_VERSION_HOSTNAME": APP}}
DEFAULT_HOST = {"environment": {"HTTP_HOST": APP, "DEFAULT_VERSION_HOSTNAME": APP}}
OTHER_HOST = {"environment": {"HTTP_HOST": "www.example.org", "DEFAULT_VERSION_HOSTNAME": APP}}
NO_HOST = {"environment": {"DEFAULT_VERSION_HOSTNAME": APP}}
NO_DEFAULT = {"environment": {"HTTP_HOST": f"v1.{APP}"}}
DOMAIN = {"environment": {"HTTP_X_APPENGINE_DEFAULT_NAMESPACE": "example.com"}}
NEW_YORK = {"zone": "America/New_York"}
STUB = {"testbed": True}

# --- Task(...): names, URLs, methods, payloads, headers, sizes, times ------------------------
TASKS = r"""
Task()
Task(None)
Task(name="a-b_C9")
Task(name="")
Task(name=None)
Task(name="a" * 500)
Task(name="a" * 501)
Task(name="a b")
Task(name="café")
Task(name="a\n")
Task(name=5)
Task(name=b"a")
Task(url="")
Task(url="/x")
Task(url=None)
Task(url=5)
Task(url=b"/x")
Task(url="x")
Task(url="?a=1")
Task(url="/x?")
Task(url="/x#")
Task(url="/x#a")
Task(url="/x?a=1#b")
Task(url="//host/x")
Task(url="http://host/x")
Task(url="http:/x")
Task(url="/" + "a" * 2082)
Task(url="/" + "a" * 2083)
Task(url="/" + "a" * 2082 + "?" + "b" * 100, method="GET")
Task(url="/x y")
Task(url="/é")
Task(url="/x;p=1")
Task(url="/x?a=1")
Task(url="/x?a=1", params={"b": 1})
Task(url="/x?a=1", params={}, method="GET")
Task(url="/x?a=1", params={"b": 1}, method="GET")
Task(url="/x?a=1", method="GET")
Task(url="/x?a=1", method="HEAD")
Task(url="/x?a=1", method="DELETE")
Task(url="/x?a=1", method="PUT", payload="p")
Task(method="get")
Task(method="GET", params={"a": 1})
Task(url="/x", method="GET", params={"a": 1, "b": [1, 2]})
Task(method="PATCH")
Task(method="OPTIONS")
Task(method="")
Task(method=None)
Task(method=5)
Task("p", method="GET")
Task("p", method="HEAD")
Task("p", method="DELETE", params={"a": 1})
Task("p", method="PATCH")
Task("", method="GET")
Task({}, method="GET")
Task("p", method="PUT", params={"a": 1})
Task(method="PUT")
Task("p", params={"a": 1})
Task("", params={"a": 1})
Task("p", url="/x?a=1")
Task("p", url="/x?a=1", params={"b": 2})
Task("x", method="PULL")
Task("x", method="pull", tag="t")
Task("x", method="PULL", tag=b"t")
Task("x", method="PULL", tag="")
Task("x", method="PULL", tag="t" * 500)
Task("x", method="PULL", tag="t" * 501)
Task("x", method="PULL", tag="é" * 251)
Task(method="PULL")
Task("", method="PULL")
Task(method="PULL", params={"a": 1})
Task("x", method="PULL", params={"a": 1})
Task("x", method="PULL", url="/x")
Task("x", method="PULL", url="")
Task("x", method="PULL", headers={"a": "b"})
Task("x", method="PULL", headers={})
Task("x", method="PULL", target="v")
Task("x", method="PULL", name="n")
Task("x" * 102401, method="PULL").size
Task("x" * 1048577, method="PULL")
Task(tag="t")
Task(tag="")
Task(tag="t", method="GET")
Task("café")
Task(b"caf\xc3\xa9")
Task("")
Task(b"")
Task(0)
Task([])
Task({})
Task(False)
Task(5)
Task({"a": 1})
Task(bytearray(b"x"))
Task(memoryview(b"x"))
Task("x", headers={"Content-Type": "text/html"})
Task("x", headers={"content-TYPE": "text/html"})
Task(params={"a": 1, "b": ["x", "y"], "c": "café"}, url="/x")
Task(params={"a": b"x", "b": [1, b"y", "z"]})
Task(params={"a": None, "b": True, "c": 1.5})
Task(params={"a": {"k": 1}})
Task(params={"a": []})
Task(params={"a b": "c&d=e"})
Task(params={5: 6})
Task(params={"é": "ü"})
Task(params={"a": (1, 2), "b": (x for x in (3,))})
Task(params=None)
Task(params={})
Task(params=[("a", 1)])
Task(params="a=1")
Task(params={"a": 1}, headers={"content-type": "text/plain"})
Task(headers=None)
Task(headers={})
Task(headers={"X-A": "1"})
Task(headers={"X-A": ["1", "2"]})
Task(headers={"X-A": ["1", "2"], "x-a": "3"})
Task(headers={"X-A": 5})
Task(headers={"X-A": None})
Task(headers={"X-A": "é"})
Task(headers={"X-A": b"b"})
Task(headers={b"X-A": "b"})
Task(headers={5: "b"})
Task(headers=[("X-A", "b")])
Task(headers=5)
Task(headers={"X-AppEngine-Current-Namespace": "mine"})
Task(headers={"x-appengine-current-namespace": "mine"})
Task(headers={"X-AppEngine-QueueName": "mine"})
Task(payload="p").headers is Task(payload="p").headers
task = Task(headers={"X-A": "1"}); task.headers["X-B"] = "2"; task.headers
Task(headers={"X-A": "1"}).headers.get("x-a")
Task(target="v1")
Task(target="")
Task(target=5)
Task(target=b"v")
Task(target=None)
Task(target=taskqueue.DEFAULT_APP_VERSION)
Task(target="v", headers={"HOST": "x"})
Task(headers={"Host": "x.y"})
Task(countdown=0)
Task(countdown=5)
Task(countdown=-5)
Task(countdown="5")
Task(countdown=1.5)
Task(countdown=True)
Task(countdown="abc")
Task(countdown=10**400)
Task(countdown=[1])
Task(countdown=datetime.timedelta(seconds=1))
Task(countdown=float("inf"))
Task(countdown=30 * 86400)
Task(countdown=30 * 86400 + 5)
Task(eta=datetime.datetime(2023, 11, 15))
Task(eta=datetime.datetime(2023, 11, 15, 1, 2, 3, 456789))
Task(eta=datetime.datetime(2023, 11, 15, tzinfo=datetime.timezone.utc))
Task(eta=datetime.datetime(2023, 11, 15, tzinfo=datetime.timezone(datetime.timedelta(hours=2))))
Task(eta=datetime.datetime(2001, 1, 1))
Task(eta=datetime.datetime(2024, 1, 1))
Task(eta=1700000000)
Task(eta="2023-11-15")
Task(eta=datetime.date(2023, 11, 15))
Task(eta=datetime.datetime(2023, 11, 15), countdown=5)
Task(eta=datetime.datetime(2023, 11, 15), countdown=None)
Task(eta=None, countdown=None)
repr(Task().eta.tzinfo)
Task("x" * 102363)
Task("x" * 102300)
Task("x" * 102400)
Task("x" * 102400, _size_check=False).size
Task(b"x" * 102363).size
Task(b"x" * 102364)
Task("x" * 102400, headers={"A": "b"}, url="/y")
Task("é" * 51200)
Task(retry_options=5).retry_options
Task(retry_options=TaskRetryOptions(task_retry_limit=3)).retry_options
Task(dispatch_deadline_usec=None)
Task(dispatch_deadline_usec=15 * 10**6)
Task(dispatch_deadline_usec=15 * 10**6 - 1)
Task(dispatch_deadline_usec=86400 * 10**6)
Task(dispatch_deadline_usec=86400 * 10**6 + 1)
Task(dispatch_deadline_usec=0)
Task(dispatch_deadline_usec=True)
Task(dispatch_deadline_usec=1.5)
Task(dispatch_deadline_usec="15000000")
Task(dispatch_deadline_usec=10**30)
Task(queue_name="q")
Task(transactional=True)
Task(rpc=None)
Task("p", payload="p")
Task("p", "q")
Task(name="a b", url="x")
Task(url="x", method="PATCH")
Task(url="x", eta=5)
Task(tag="t", eta=5)
Task(eta=5, countdown=5)
Task(eta=5, dispatch_deadline_usec=0)
Task(method="PATCH", eta=5)
Task("p", params={"a": 1}, eta=5)
Task("x" * 200000, eta=5)
Task("x" * 200000, dispatch_deadline_usec=0)
Task("x" * 200000, target="v", headers={"Host": "h"})
Task(target="v", headers={"Host": "h"}, eta=5)
Task(target="v", headers={"Host": "h"}, dispatch_deadline_usec=0)
Task(target="v", headers={"Host": "h"}, params={"a": 1}, payload="p")
Task("x" * 1048577, method="PULL", tag="t" * 501)
Task("x", method="PULL", url="/x", tag="t" * 501)
Task("x", method="PULL", eta=5, tag="t" * 501)
Task().extract_params()
Task("a=1&b=2&b=3").extract_params()
Task(b"a=1").extract_params()
Task("a=").extract_params()
Task("a").extract_params()
Task("bad field").extract_params()
Task(b"\xff").extract_params()
Task("a=%C3%A9").extract_params()
Task(params={"a": 1, "b": ["x", "y"], "c": ""}).extract_params()
Task(url="/x?a=1&b=%C3%A9", method="GET").extract_params()
Task(url="/x", method="GET").extract_params()
Task("p", method="PUT", params={"a": 1}).extract_params()
Task("a=1", method="PUT").extract_params()
Task(method="PULL", params={"a": 1}).extract_params()
Task(method="DELETE", params={"a": 1}).extract_params()
Task(name="x", url="/x", countdown=5).__repr__()
Task().name
setattr(Task(), "name", "x")
Task("", method="PUT")
Task(0, method="PUT")
Task(0, method="PULL")
Task(url=0)
Task(dispatch_deadline_usec=0, countdown="")
Task("x", dispatch_deadline_usec=0, method="PULL", tag="t" * 501)
"""

HOSTS = r"""
Task()
Task(target="v1")
Task(target="")
Task(target="0.v1.mod")
Task(target=taskqueue.DEFAULT_APP_VERSION)
Task(target=None)
Task(headers={"Host": "app.example.com"})
Task(headers={"host": "v2.app.example.com"})
Task(headers={"Host": "v2-dot-m-dot-app.example.com"})
Task(headers={"Host": "other.example.org"})
Task(headers={"Host": "xapp.example.com"})
Task(headers={"Host": ""})
Task(headers={"Host": ["a", "b"]})
Task("x", method="PULL")
"""

NAMESPACES = r"""
namespace_manager.set_namespace("ns1"); Task()
namespace_manager.set_namespace("ns1"); Task("x", method="PULL")
namespace_manager.set_namespace("ns1"); Task(headers={"X-AppEngine-Current-Namespace": ""})
namespace_manager.set_namespace("ns1"); namespace_manager.set_namespace(None); namespace_manager.get_namespace()
namespace_manager.set_namespace("a b")
namespace_manager.set_namespace("x" * 101)
namespace_manager.get_namespace()
Task()
"""

TIMES = r"""
Task(eta=datetime.datetime(2023, 11, 15, 12))
Task(eta=datetime.datetime(2023, 7, 15, 12))
Task(eta=datetime.datetime(2023, 11, 5, 1, 30, fold=1))
Task(eta=datetime.datetime(2023, 11, 15, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2))))
"""

OPTIONS = r"""
TaskRetryOptions()
TaskRetryOptions(min_backoff_seconds=1, max_backoff_seconds=2, max_doublings=3, task_retry_limit=4, task_age_limit=5)
TaskRetryOptions(task_age_limit=1.2)
TaskRetryOptions(task_age_limit=0)
TaskRetryOptions(task_retry_limit=0)
TaskRetryOptions(task_retry_limit=1.5)
TaskRetryOptions(min_backoff_seconds=-1)
TaskRetryOptions(max_backoff_seconds=-0.1)
TaskRetryOptions(max_doublings=-1)
TaskRetryOptions(task_retry_limit=-1)
TaskRetryOptions(task_age_limit=-1)
TaskRetryOptions(min_backoff_seconds=5, max_backoff_seconds=4)
TaskRetryOptions(min_backoff_seconds=5, max_backoff_seconds=5)
TaskRetryOptions(min_backoff_seconds=None, max_backoff_seconds=0)
TaskRetryOptions(min_backoff_seconds="x")
TaskRetryOptions(max_backoff_seconds="x")
TaskRetryOptions(task_age_limit="1")
TaskRetryOptions(max_doublings=[])
TaskRetryOptions(task_age_limit=float("nan"))
TaskRetryOptions(task_age_limit=float("inf"))
TaskRetryOptions(x=1)
TaskRetryOptions(5)
TaskRetryOptions(min_backoff_seconds=-1, max_backoff_seconds=-2, max_doublings=-1)
TaskRetryOptions(min_backoff_seconds=5, max_backoff_seconds=4, max_doublings=-1)
TaskRetryOptions(max_doublings=-1, task_retry_limit=-1, task_age_limit=-1)
TaskRetryOptions(min_backoff_seconds=5, max_backoff_seconds=-4)
"""

MODULE = r"""
sorted(taskqueue.__all__)
sorted(taskqueue.taskqueue.__all__)
[name for name in taskqueue.taskqueue.__all__ if not hasattr(taskqueue, name)]
[hasattr(taskqueue, name) for name in ("_DEFAULT_QUEUE", "_UTC", "_TASK_NAME_PATTERN", "_flatten_params", "_parse_relative_url")]
[hasattr(taskqueue.taskqueue, name) for name in ("_DEFAULT_QUEUE", "_UTC", "_TASK_NAME_PATTERN", "_flatten_params", "_parse_relative_url")]
taskqueue.Task is taskqueue.taskqueue.Task
taskqueue.BadTransactionState is taskqueue.BadTransactionStateError
{name: getattr(taskqueue, name) for name in taskqueue.taskqueue.__all__ if name.startswith("MAX_") or name.startswith("MIN_")}
{name: sorted(other for other in taskqueue.taskqueue.__all__ if isinstance(getattr(taskqueue, other), type) and issubclass(getattr(taskqueue, other), Exception) and issubclass(getattr(taskqueue, name), getattr(taskqueue, other))) for name in taskqueue.taskqueue.__all__ if name.endswith("Error")}
[taskqueue.Task.__module__, taskqueue.Queue.__module__, taskqueue.Error.__module__, taskqueue.TaskRetryOptions.__module__, taskqueue.QueueStatistics.__module__]
[taskqueue.taskqueue._TASK_NAME_PATTERN, taskqueue.taskqueue._QUEUE_NAME_PATTERN, taskqueue.taskqueue._DEFAULT_QUEUE_PATH, taskqueue.taskqueue._MAX_COUNTDOWN_SECONDS]
[taskqueue.DEFAULT_APP_VERSION, taskqueue.taskqueue._UNKNOWN_APP_VERSION, taskqueue.taskqueue._UTC]
taskqueue.taskqueue._parse_relative_url("/x?a=1")
taskqueue.taskqueue._parse_relative_url("")
taskqueue.taskqueue._parse_relative_url("/x#y")
hasattr(taskqueue, "add_async")
Queue("a") == Queue("a"), Queue("a") == Queue("b"), Queue("a") != Queue("a"), Queue("a") == 5
hash(Queue())
Queue()
Queue("")
Queue("a_b")
Queue("a" * 100)
Queue("a" * 101)
Queue("a\n")
Queue(None)
Queue(5)
Queue(name="x").name
Queue()._app
QueueStatistics(Queue(), 1)
QueueStatistics(Queue(), 1) == QueueStatistics(Queue(), 1), QueueStatistics(Queue(), 1) == QueueStatistics(Queue(), 2)
repr(QueueStatistics(Queue("q"), 1, 2, 3, 4, 5.0))
hash(QueueStatistics(Queue(), 1))
QueueStatistics()
"""

QUEUES = r"""
taskqueue.add()
taskqueue.add("p", url="/x", countdown=5, queue_name="default")
taskqueue.add(queue_name=None)
taskqueue.add(queue_name="a_b")
taskqueue.add(rpc=None)
taskqueue.add(queue_name="nope")
taskqueue.add(transactional=True)
taskqueue.add(name="n", transactional=True)
taskqueue.add(name="n")
Task().add()
Task().add("default", False)
Task().add(queue_name="nope")
Task().add_async().get_result()
Task().add_async("default", False, None)
task = Task(); [task.add() is task, task.was_enqueued, task.queue_name, task.name]
task = Task(); task.add(); task.add()
Queue().add(None)
Queue().add([])
Queue().add(())
Queue().add({})
Queue().add(Task())
Queue().add([Task(name="m"), Task(name="n")])
Queue().add((Task(name="m"), Task(name="n")))
Queue().add(Task(name=name) for name in "mn")
Queue().add([])
Queue().add([Task(url="/%d" % number) for number in range(100)])[99]
Queue().add([Task() for _ in range(101)])
Queue().add(5)
Queue().add("abc")
Queue().add([Task(), 5])
Queue().add([Task(name="a"), Task(name="a")])
Queue().add([Task(name="a"), Task(name="a")] * 60)
task = Task(); Queue().add([task, task])
task = Task(); task.add(); Queue().add([Task(), task])
task = Task(); task.add(); Queue().add([task, Task(name="a"), Task(name="a")])
task = Task(); task.add(); Queue().add([Task(name="a"), Task(name="a"), task])
Queue().add([Task(), Task("x", method="PULL")])
Queue().add([Task(), Task("x", method="PULL")] * 60)
Queue().add(Task("x", method="PULL"))
Queue().add([Task("x", method="PULL")])
Queue().add(Task(retry_options=5))
Queue().add(Task(retry_options=TaskRetryOptions(task_retry_limit=2, task_age_limit=3.5)))
Queue().add(Task(), transactional=True)
Queue().add(Task(name="n"), transactional=True)
Queue().add([Task(name="n"), Task(name="n")], transactional=True)
Queue().add(Task(countdown="5", payload=0))
Queue().add(Task(params={"a": 1}))
taskqueue.add(name="a"); taskqueue.add(name="a")
taskqueue.add(name="a"); Queue().delete_tasks_by_name("a"); taskqueue.add(name="a")
Queue().delete_tasks(Task())
Queue().delete_tasks([Task(name="a"), Task()])
Queue().delete_tasks([Task(name="a"), Task(name="a")])
Queue().delete_tasks([Task(name="a"), Task(name="a"), Task()])
Queue().delete_tasks(Task(name="a"))
Queue().delete_tasks([])
Queue().delete_tasks(())
Queue().delete_tasks(None)
Queue().delete_tasks(5)
Queue("nope").delete_tasks(Task(name="a"))
task = taskqueue.add(name="a"); Queue().delete_tasks(task)
task = taskqueue.add(); Queue().delete_tasks(task).was_deleted
task = taskqueue.add(name="a"); Queue().delete_tasks(task); Queue().delete_tasks(task)
task = taskqueue.add(name="a"); Queue().delete_tasks_async(task).get_result()
taskqueue.add(name="a"); Queue().delete_tasks_by_name("a")
taskqueue.add(name="a"); Queue().delete_tasks_by_name(["a", "b"])
Queue().delete_tasks_by_name([])
Queue().delete_tasks_by_name("")
Queue().delete_tasks_by_name(None)
Queue().delete_tasks_by_name("a b")
Queue().delete_tasks_by_name(["a", "a"])
Queue().delete_tasks_by_name_async("a").get_result()
Queue("nope").delete_tasks_by_name("a")
Queue().purge()
Queue("nope").purge()
Queue().fetch_statistics()
taskqueue.add(); Queue().fetch_statistics()
taskqueue.add(countdown=60); taskqueue.add(); Queue().fetch_statistics()
Queue("nope").fetch_statistics()
Queue().fetch_statistics(0)
Queue().fetch_statistics(-1)
Queue().fetch_statistics(deadline="x")
Queue().fetch_statistics(None)
Queue().fetch_statistics_async().get_result()
QueueStatistics.fetch("default")
QueueStatistics.fetch(Queue())
QueueStatistics.fetch(["default", "other"])
QueueStatistics.fetch([Queue(), Queue("other")])
QueueStatistics.fetch(name for name in ["default"])
QueueStatistics.fetch([])
QueueStatistics.fetch(None)
QueueStatistics.fetch(5)
QueueStatistics.fetch([1, 2])
QueueStatistics.fetch(["default", Queue()])
QueueStatistics.fetch("a_b")
QueueStatistics.fetch("default", 0)
queue = Queue(); queue._app = "other"; QueueStatistics.fetch([Queue(), queue])
Queue().lease_tasks("x", 1)
Queue().lease_tasks(None, 1)
Queue().lease_tasks(1, "x")
Queue().lease_tasks(1, 1.5)
Queue().lease_tasks(-1, 1)
Queue().lease_tasks(604801, 1)
Queue().lease_tasks(1, 0)
Queue().lease_tasks(1, 1001)
Queue().lease_tasks(1, 1)
Queue().lease_tasks(1.5, 1000)
Queue().lease_tasks(1, 1, deadline=0)
Queue().lease_tasks(1, 1, deadline="x")
Queue().lease_tasks("x", 1, deadline=0)
Queue().lease_tasks_by_tag(1, 1)
Queue().lease_tasks_by_tag(1, 1, "t")
Queue().lease_tasks_by_tag(1, 1, "t" * 501)
Queue().lease_tasks_by_tag("x", 1)
Queue().modify_task_lease(Task(name="a"), "x")
Queue().modify_task_lease(Task(name="a"), -1)
Queue().modify_task_lease(Task(name="a"), 604801)
Queue().modify_task_lease(Task(name="a"), 5)
Queue().modify_task_lease(5, 5)
rpc = taskqueue.create_rpc(deadline=5); [rpc.service, rpc.method, rpc.deadline, rpc.state, rpc.request, rpc.response, rpc.future, rpc.get_result_hook, rpc.user_data, rpc.callback]
taskqueue.create_rpc().wait()
taskqueue.create_rpc().check_success()
taskqueue.create_rpc().get_result()
rpc = taskqueue.create_rpc(); [Queue().add_async(Task(), rpc=rpc) is rpc, rpc.method, rpc.state]
rpc = Queue().add_async(Task(name="n")); [rpc.get_result() is rpc.get_result(), rpc.get_result(), rpc.state]
task = Task(); rpc = Queue().add_async(task); [task.was_enqueued, rpc.wait(), task.was_enqueued, rpc.check_success(), task.was_enqueued, rpc.get_result() is task]
rpc = taskqueue.create_rpc(); Queue().add_async(Task(), rpc=rpc); Queue().add_async(Task(), rpc=rpc)
Queue().add_async(Task(), rpc=5)
Queue().add_async(None)
from google.appengine.api import apiproxy_stub_map; rpc = apiproxy_stub_map.UserRPC("taskqueue"); Queue().add_async(Task(), rpc=rpc) is rpc
from google.appengine.api import apiproxy_stub_map; apiproxy_stub_map.UserRPC.wait_any([])
from google.appengine.api import apiproxy_stub_map; apiproxy_stub_map.UserRPC.wait_any(iter([]))
from google.appengine.api import apiproxy_stub_map; apiproxy_stub_map.UserRPC.wait_any([taskqueue.create_rpc()]).state
from google.appengine.api import apiproxy_stub_map; rpcs = [Queue().add_async(Task()) for _ in range(2)]; [apiproxy_stub_map.UserRPC.wait_any(rpcs).state, apiproxy_stub_map.UserRPC.wait_all(rpcs), [rpc.state for rpc in rpcs]]
calls = []; rpc = taskqueue.create_rpc(callback=lambda *args: calls.append(args)); Queue().add_async(Task(), rpc=rpc); [list(calls), rpc.wait(), rpc.wait(), rpc.get_result().name, calls]
calls = []; rpc = taskqueue.create_rpc(callback=lambda: calls.append(1)); Queue("nope").add_async(Task(), rpc=rpc); [rpc.wait(), rpc.check_success(), calls]
rpc = Queue("nope").add_async(Task()); rpc.get_result()
[Queue().delete_tasks_async(Task(name="x")).method, Queue().fetch_statistics_async().method, Queue().add_async(Task()).method]
Queue().add_async(Task(), transactional=True)
"""

# Cases of several statements, told apart by blank lines.
BLOCKS = r"""
taskqueue.add(name="a")
tasks = [Task(name="b"), Task(name="a"), Task(name="c")]
seen = []
try:
    Queue().add(tasks)
except taskqueue.TaskAlreadyExistsError:
    seen.append("exists")
[seen, [task.was_enqueued for task in tasks], len(bed.get_stub("taskqueue").GetTasks("default"))]

taskqueue.add(name="a")
taskqueue.add(name="b")
Queue().delete_tasks_by_name("a")
seen = []
for names in (["a", "b", "c"], ["b", "a", "d"]):
    try:
        Queue().add([Task(name=name) for name in names])
    except taskqueue.Error as error:
        seen.append(type(error).__name__)
seen

tasks = [Task(name="a"), Task("x" * 1200000, name="b", _size_check=False), Task(name="c")]
seen = []
try:
    Queue().add(tasks)
except taskqueue.Error as error:
    seen.append(type(error).__name__)
[seen, [task.was_enqueued for task in tasks]]

Queue().add([Task(), Task()])
Queue().purge()
[len(bed.get_stub("taskqueue").GetTasks("default")), Queue().fetch_statistics().tasks]

class Mine(Task):
    pass
task = Mine(url="/x")
[task.add() is task, task.was_enqueued]

class Mine(Queue):
    def add_async(self, task, transactional=False, rpc=None):
        task.seen = "replaced"
        return super().add_async(task, transactional, rpc)
Mine().add(Task()).seen

from unittest import mock
with mock.patch("google.appengine.api.taskqueue.Queue.add") as add:
    Queue("q").add("task", transactional=True)
    taskqueue.add(name="n")
add.mock_calls

from unittest import mock
with mock.patch("google.appengine.api.taskqueue.Queue.add_async") as add_async:
    Queue("q").add("task", True)
    result = taskqueue.add(name="n")
[len(add_async.mock_calls), add_async.mock_calls[0], result is add_async.return_value.get_result.return_value]

from unittest import mock
with mock.patch("google.appengine.api.taskqueue.Task.add_async") as add_async:
    result = taskqueue.add(name="n", queue_name="q")
[add_async.mock_calls, result is add_async.return_value.get_result.return_value]

from unittest import mock
with mock.patch("google.appengine.api.taskqueue.Task.add") as add:
    taskqueue.add(name="n", queue_name="q", transactional=True)
add.mock_calls

from unittest import mock
with mock.patch.object(taskqueue.taskqueue, "Task") as made:
    taskqueue.add("p", name="n", queue_name="q")
made.mock_calls

from unittest import mock
with mock.patch.object(taskqueue.taskqueue, "Queue") as made:
    Task(name="n").add("q")
[str(made.mock_calls[0]), len(made.mock_calls)]

from unittest import mock
with mock.patch.object(taskqueue, "add") as add:
    taskqueue.add(1, a=2)
add.mock_calls
"""


def cases() -> list[tuple[str, dict[str, object]]]:
    """Return every case: code, and the surroundings it runs in."""
    found = []
    for text, surroundings in (
        (TASKS, [OUTSIDE]),
        (HOSTS, [OUTSIDE, REQUEST, DEFAULT_HOST, OTHER_HOST, NO_HOST, NO_DEFAULT]),
        (NAMESPACES, [OUTSIDE, DOMAIN]),
        (TIMES, [OUTSIDE, NEW_YORK]),
        (OPTIONS, [OUTSIDE]),
        (MODULE, [OUTSIDE]),
        (QUEUES, [STUB]),
    ):
        for around in surroundings:
            found += [(line, around) for line in text.splitlines() if line]
    found += [(block.strip("\n"), STUB) for block in BLOCKS.split("\n\n")]
    return found
