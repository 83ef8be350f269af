"""Calls of ``deferred`` that Google's SDK and appengine-compat answer alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

STUB = {"testbed": True}
PREAMBLE = """
import base64, collections, decimal, functools, io, math, operator, os, pickle, pickletools
from google.appengine.ext import deferred
from google.appengine.ext.deferred import deferred as submodule
def curried(obj, *args, **kwargs):
    function, args, kwargs = submodule._curry_callable(obj, *args, **kwargs)
    return [getattr(function, "__name__", repr(function)), args, kwargs]
def request(body, **changes):
    environ = {
        "REQUEST_METHOD": "POST", "SERVER_SOFTWARE": "gunicorn/20", "REMOTE_ADDR": "0.1.0.2",
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
        "HTTP_X_APPENGINE_TASKNAME": "t1", "HTTP_X_APPENGINE_QUEUENAME": "default", **changes,
    }
    return {key: value for key, value in environ.items() if value is not None}
def answered(app, environ):
    answer = []
    body = app(environ, lambda status, headers: answer.extend([status, headers]))
    return [*answer, b"".join(body)]
def permanent(call, *args):
    try:
        return ["returned", call(*args)]
    except deferred.PermanentTaskFailure as error:
        return [type(error.args[0]).__name__ for _ in error.args]
def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except (pickle.PicklingError, AttributeError, TypeError):
        return "refused"
"""

CURRIED = (
    "len, 'a'", "operator.add, 1, 2", "math.gcd, 4, 6", "print, 1, sep=''", "dict, a=1",
    "[].append, 1", "[1].append, 2", "{}.get, 1", "{'a': 1}.get, 'a'", "''.join, []",
    "'-'.join, ['a']", "datetime.datetime(2020, 1, 2).isoformat", "dict.fromkeys, 'a'",
    "datetime.date.today", "datetime.date(2020, 1, 2).replace, year=2021", "str.upper, 'a'",
    "functools.partial(len), 'a'", "collections.OrderedDict, [('a', 1)]", "int, '5', base=16",
    "decimal.Decimal('1').sqrt", "collections.Counter('aab').most_common, 1", "(1).__add__, 2",
    "operator.itemgetter(1), [1, 2]", "object", "type, 1", "deferred.run, b''",
    "collections.OrderedDict.fromkeys, 'ab'", "5", "None", "'text'", "[]",
)  # fmt: skip

SERIALIZED = (
    "operator.add, 1, 2", "len, 'caf\\xe9'", "print, 1, sep=''", "math.gcd",
    "dict, a=1, b=[1, {2: 3}]",
    "'-'.join, ['a', 'b']", "datetime.datetime(2020, 1, 2).isoformat", "int, '5', base=16",
    "decimal.Decimal('1').sqrt", "functools.partial(operator.add, 1), 2", "dict.fromkeys, 'ab'",
    "len, b'\\x00\\xff'", "len, datetime.datetime(2020, 1, 2, 3, 4, 5, 6)", "len, 2 ** 100",
    "len, None, True, 1.5, (), [], {}, set()", "deferred.run_from_datastore, 'key'", "5", "'x'",
    "collections.OrderedDict.fromkeys, 'ab'", "len, _countdown=5, _method='GET'",
)  # fmt: skip

RUN = (
    "b''", "b'xx'", "b'\\x80'", "b'\\x80\\x05'", "'text'", "None", "5", "pickle.dumps(5)",
    "pickle.dumps((len, ('a',)))", "pickle.dumps((len, ('abc',), {}))",
    "bytearray(pickle.dumps((len, ('abc',), {})))", "memoryview(pickle.dumps((len, ('abc',), {})))",
    "b'cno_such_module\\nf\\n.'", "b'\\x80\\x02cos\\nno_such_name\\n)}\\x87.'", "b'(((('",
    "pickle.dumps((len, ('abc',), {}))[:-3]", "pickle.dumps([len, ('abc',), {}])",
    "pickle.dumps((int, ('ff',), {'base': 16}), 2)", "pickle.dumps((int, ('x',), {}))",
    "pickle.dumps((5, (), {}))", "pickle.dumps((len, (), {}))", "pickle.dumps((len, 5, {}))",
    "pickle.dumps((len, ('a',), 5))", "pickle.dumps((len, ('a',), {5: 6}))",
    "b'\\x80\\x02c__builtin__\\nunichr\\nKa\\x85}\\x87.'",
    "b'\\x80\\x02c__builtin__\\nlen\\nU\\x03abc\\x85}\\x87.'",
)  # fmt: skip

DEFERRED = (
    "len, 'a'", "len, 'a', _countdown=10", "len, 'a', _name='foo'", "len, 'a', _queue='default'",
    "len, 'a', _url='/custom'", "len, 'a', _url=''", "len, 'a', _headers={'X-A': 'b'}",
    "len, 'a', _headers={'Content-Type': 'text/plain'}",
    "len, 'a', _headers={'content-type': 'text/plain'}", "len, 'a', _headers={}",
    "len, 'a', _target='backend'", "len, 'a', _eta=datetime.datetime(2023, 12, 1, 1, 2, 3)",
    "len, 'a', _retry_options=TaskRetryOptions(task_retry_limit=3)",
    "len, 'a', _transactional=False", "len, 'a', _transactional=None",
    "len, 'a', _countdown=None", "len, 'a', _name=None",
    "len, 'a', _name=''", "len, 'a', _target=None", "dict, _method='GET'", "dict, _params={'a': 1}",
    "dict, _payload='x', _tag='y', _dispatch_deadline_usec=5", "'-'.join, ['a', 'b']",
    "len, 'a', _headers={'Host': 'x.example.com'}", "len, 'a', _url='/custom?'",
    "len, 'a', _eta=1", "len, 'a', _eta=datetime.datetime(2020, 1, 1), _countdown=1",
    "len, 'a', _queue=None", "len, 'a', _queue='no_underscores'", "len, 'a', _name='no spaces'",
    "len, 'a', _url='http://x/'", "len, 'a', _url='x'", "len, 'a', _url=5",
    "len, 'a', _countdown='x'", "len, 'a', _countdown=10 ** 9", "len, 'a', _transactional=True",
    "len, 'a', _headers=5", "5", "'len'", "",
)  # fmt: skip

HANDLED = (
    "deferred.serialize(len, 'a')",
    "deferred.serialize(len, 'a'), SERVER_SOFTWARE='Development/2.0', REMOTE_ADDR='127.0.0.1'",
    "deferred.serialize(len, 'a'), REMOTE_ADDR='127.0.0.1'",
    "deferred.serialize(len, 'a'), REMOTE_ADDR=None",
    "deferred.serialize(len, 'a'), HTTP_X_APPENGINE_TASKNAME=None",
    "deferred.serialize(len, 'a'), HTTP_X_APPENGINE_TASKNAME=''",
    "deferred.serialize(len, 'a'), HTTP_X_APPENGINE_QUEUENAME=None",
    "deferred.serialize(len, 'a'), SERVER_SOFTWARE='Werkzeug/2', REMOTE_ADDR='127.0.0.1'",
    "b'xx'",
    "b''",
    "pickle.dumps((len, ('a',)))",
    "deferred.serialize(int, 'x')",
    "deferred.serialize(submodule.run, b'xx')",
    "deferred.serialize(len, 'a'), PATH_INFO='/anything'",
    "deferred.serialize(len, 'a'), CONTENT_TYPE='text/plain'",
)

OTHERS = (
    "[name for name in 'Error Handler PermanentTaskFailure SingularTaskFailure application defer "
    "deferred http invoke_member logging os pickle run run_from_datastore serialize set_log_level "
    "taskqueue types'.split() if not hasattr(deferred, name)]",
    "[name for name in '_curry_callable _DEFAULT_URL _DEFAULT_QUEUE _TASKQUEUE_HEADERS "
    "_DEFAULT_LOG_LEVEL _TASKQUEUE_RESPONSE_HEADERS'.split() if hasattr(deferred, name)]",
    "[submodule._DEFAULT_URL, submodule._DEFAULT_QUEUE, submodule._TASKQUEUE_HEADERS, "
    "submodule._DEFAULT_LOG_LEVEL, submodule._TASKQUEUE_RESPONSE_HEADERS]",
    "deferred.deferred is submodule",
    "deferred.run is submodule.run",
    "[[base.__name__ for base in getattr(deferred, name).__mro__] for name in "
    "('Error', 'PermanentTaskFailure', 'SingularTaskFailure', 'Handler')]",
    "[getattr(deferred, name).__module__ for name in ('Error', 'defer', 'run', 'Handler', "
    "'invoke_member', 'serialize', 'run_from_datastore')]",
    "type(deferred.application).__name__",
    "deferred.invoke_member([1, 2], 'count', 2)",
    "deferred.invoke_member('a-b', 'split', sep='-')",
    "deferred.invoke_member(None, 'x')",
    "refused(deferred.serialize, lambda: 1)",
    "refused(deferred.serialize, len, lambda: 1)",
    "refused(deferred.serialize, len, (x for x in ()))",
    "refused(deferred.serialize, len, io.BytesIO().getbuffer())",
    "refused(deferred.serialize, deferred)",
    "[code.name for code, _, _ in pickletools.genops(deferred.serialize([1].count, 1))]",
    "deferred.set_log_level(10), submodule._DEFAULT_LOG_LEVEL, deferred.set_log_level(20)",
    "answered(deferred.application, request(deferred.serialize(len, 'a')))",
    "answered(deferred.Handler(), request(b'xx'))",
)
STUBBED = (
    "[deferred.run(task.payload) for _ in [deferred.defer(len, 'abc')] for task in "
    "bed.get_stub('taskqueue').get_filtered_tasks()]",
    "[(task.url, task.method, task.name) for _ in [deferred.defer(len, 'a', _url='')] for task in "
    "bed.get_stub('taskqueue').get_filtered_tasks()]",
    "sorted(bed.get_stub('taskqueue').GetTasks('default')[0]) if deferred.defer(len, 'a') else 0",
    "[deferred.defer(len, 'a').name, deferred.defer(len, 'b').name]",
)


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield code, and where it runs."""
    for row in CURRIED:
        yield f"curried({row})", {}
    for row in SERIALIZED:
        yield f"deferred.serialize({row})", {}
        for variable in ("1", "False"):
            environment = {"DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL": variable}
            yield f"deferred.serialize({row})", {"environment": environment}
    for row in RUN:
        yield f"permanent(deferred.run, {row})", {}
    for row in DEFERRED:
        yield f"deferred.defer({row})", STUB
    for row in HANDLED:
        yield f"deferred.application.post(request({row}))", STUB
    for row in OTHERS:
        yield row, STUB if "answered" in row else {}
    for row in STUBBED:
        yield row, STUB
