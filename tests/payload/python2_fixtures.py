# -*- coding: utf-8 -*-
"""Writes python2_cases.json: payloads made by a real Python 2.7, and what they must become.

Run it with Python 2.7, from any directory: python2.7 tests/payload/python2_fixtures.py
"""

# It runs in Python 2, whose literals are what is tested.
# ruff: noqa
# fmt: off

import base64
import cPickle
import collections
import datetime
import decimal
import fractions
import functools
import itertools
import json
import operator
import os
import pickle
import re
import sets
import string
import StringIO
import sys
import time
import types
import urllib
import urllib2
import UserDict
import UserList
import uuid
import Queue
import array

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import python2_app as app

# The names that Google's library put into payloads.
for _name in (
    "google",
    "google.appengine",
    "google.appengine.ext",
    "google.appengine.ext.deferred",
    "google.appengine.ext.deferred.deferred",
):
    sys.modules[_name] = types.ModuleType(_name)
_deferred = sys.modules["google.appengine.ext.deferred.deferred"]


def invoke_member(obj, membername, *args, **kwargs):
    return getattr(obj, membername)(*args, **kwargs)


invoke_member.__module__ = _deferred.__name__
_deferred.invoke_member = invoke_member

CAFE = "caf\xc3\xa9"
BLOB = "\x00\xff\xfe\x80"

# name, value in Python 2, and an expression of Python 3: its value, or with "value" in it a test.
VALUES = [
    ("none", None, "None"),
    ("true", True, "True"),
    ("false", False, "False"),
    ("zero", 0, "0"),
    ("int", 42, "42"),
    ("negative int", -7, "-7"),
    ("large int", 2**31, "2 ** 31"),
    ("maxint", sys.maxint, "2 ** 63 - 1"),
    ("long", long(5), "5"),
    ("long of 70 bits", 2**70, "2 ** 70"),
    ("negative long", -(2**70), "-(2 ** 70)"),
    ("long of 3000 bits", 3**1900, "3 ** 1900"),
    ("float", 1.5, "1.5"),
    ("infinity", float("inf"), "float('inf')"),
    ("complex", 1 + 2j, "1 + 2j"),
    ("empty str", "", "''"),
    ("ascii str", "abc", "'abc'"),
    ("str with quotes", 'it\'s "so"\n', "'it\\'s \"so\"\\n'"),
    ("utf-8 str", CAFE, "'caf\\xe9'"),
    ("utf-8 str of 300 bytes", CAFE * 60, "'caf\\xe9' * 60"),
    ("utf-8 emoji", u"\U0001f600".encode("utf-8"), "'\\U0001f600'"),
    ("binary str", BLOB, "b'\\x00\\xff\\xfe\\x80'"),
    ("latin-1 str", "caf\xe9", "b'caf\\xe9'"),
    ("cut utf-8 str", "caf\xc3", "b'caf\\xc3'"),
    ("binary str of 300 bytes", "\xff" * 300, "b'\\xff' * 300"),
    ("str with nul", "a\x00b", "'a\\x00b'"),
    ("unicode", u"abc", "'abc'"),
    ("unicode of latin-1", u"caf\xe9", "'caf\\xe9'"),
    ("unicode of cyrillic", u"\u0434\u0430", "'\\u0434\\u0430'"),
    ("unicode beyond the plane", u"\U0001f600", "'\\U0001f600'"),
    ("unicode with newline", u"a\nb\\", "'a\\nb\\\\'"),
    ("empty unicode", u"", "''"),
    ("tuple", (1, "a"), "(1, 'a')"),
    ("empty tuple", (), "()"),
    ("nested tuples", (1, (2, (3, (4, 5, 6)))), "(1, (2, (3, (4, 5, 6))))"),
    ("list", [1, "a", None], "[1, 'a', None]"),
    ("empty list", [], "[]"),
    ("long list", range(1500), "list(range(1500))"),
    ("dict", {"a": 1}, "{'a': 1}"),
    ("empty dict", {}, "{}"),
    ("dict with utf-8 key", {CAFE: CAFE}, "{'caf\\xe9': 'caf\\xe9'}"),
    ("dict with binary key", {BLOB: 1}, "{b'\\x00\\xff\\xfe\\x80': 1}"),
    (
        "dict with mixed keys",
        {"a": 1, u"b": 2, 3: 4, (5, "c"): 6},
        "{'a': 1, 'b': 2, 3: 4, (5, 'c'): 6}",
    ),
    (
        "text, binary and a date",
        [CAFE, BLOB, datetime.date(2020, 1, 2)],
        "['caf\\xe9', b'\\x00\\xff\\xfe\\x80', datetime.date(2020, 1, 2)]",
    ),
    (
        "dict of text, binary and a time",
        {"name": CAFE, "blob": BLOB, "at": datetime.datetime(2021, 6, 7, 8)},
        "{'name': 'caf\\xe9', 'blob': b'\\x00\\xff\\xfe\\x80', 'at': datetime.datetime(2021, 6, 7, 8)}",
    ),
    (
        "datetime",
        datetime.datetime(2020, 1, 2, 3, 4, 5, 678),
        "datetime.datetime(2020, 1, 2, 3, 4, 5, 678)",
    ),
    ("first datetime", datetime.datetime.min, "datetime.datetime.min"),
    ("last datetime", datetime.datetime.max, "datetime.datetime.max"),
    ("epoch", datetime.datetime(1970, 1, 1), "datetime.datetime(1970, 1, 1)"),
    (
        "datetime of 1919",
        datetime.datetime(1919, 12, 31, 23, 59, 59, 999999),
        "datetime.datetime(1919, 12, 31, 23, 59, 59, 999999)",
    ),
    ("datetime of 2048", datetime.datetime(2048, 2, 29), "datetime.datetime(2048, 2, 29)"),
    (
        "datetimes of every decade",
        [datetime.datetime(y, 5, 17, 13, 7, 11, y * 97) for y in range(1, 9999, 30)],
        "[datetime.datetime(y, 5, 17, 13, 7, 11, y * 97) for y in range(1, 9999, 30)]",
    ),
    ("date", datetime.date(2020, 1, 2), "datetime.date(2020, 1, 2)"),
    (
        "dates of every year",
        [datetime.date(y, 12, 31) for y in range(1, 10000, 7)],
        "[datetime.date(y, 12, 31) for y in range(1, 10000, 7)]",
    ),
    (
        "date that is valid utf-8",
        datetime.date(0xC3 + 0x700, 1, 2),
        "datetime.date(0xc3 + 0x700, 1, 2)",
    ),
    ("time", datetime.time(1, 2, 3), "datetime.time(1, 2, 3)"),
    (
        "time with microseconds",
        datetime.time(23, 59, 59, 999999),
        "datetime.time(23, 59, 59, 999999)",
    ),
    (
        "times of many microseconds",
        [datetime.time(0, 0, 0, n) for n in range(0, 1000000, 9973)],
        "[datetime.time(0, 0, 0, n) for n in range(0, 1000000, 9973)]",
    ),
    ("timedelta", datetime.timedelta(3, 4, 5), "datetime.timedelta(3, 4, 5)"),
    (
        "dict with datetime key",
        {datetime.datetime(2020, 1, 2): "x"},
        "{datetime.datetime(2020, 1, 2): 'x'}",
    ),
    ("set", set([1, "a"]), "{1, 'a'}"),
    ("frozenset", frozenset([1, 2]), "frozenset({1, 2})"),
    ("set of utf-8 and binary", set([CAFE, BLOB]), "{'caf\\xe9', b'\\x00\\xff\\xfe\\x80'}"),
    ("sets.Set", sets.Set([1, 2]), "{1, 2}"),
    ("sets.ImmutableSet", sets.ImmutableSet(["a"]), "frozenset({'a'})"),
    ("deque", collections.deque([1, 2], 5), "collections.deque([1, 2], 5)"),
    (
        "OrderedDict",
        collections.OrderedDict([("b", 1), ("a", CAFE)]),
        "collections.OrderedDict([('b', 1), ('a', 'caf\\xe9')])",
    ),
    (
        "defaultdict",
        collections.defaultdict(list, {"a": [1]}),
        "collections.defaultdict(list, {'a': [1]})",
    ),
    ("Counter", collections.Counter("aab"), "collections.Counter('aab')"),
    ("Decimal", decimal.Decimal("1.50"), "decimal.Decimal('1.50')"),
    ("Fraction", fractions.Fraction(1, 3), "fractions.Fraction(1, 3)"),
    ("UUID", uuid.UUID(int=2**100), "uuid.UUID(int=2 ** 100)"),
    ("xrange", xrange(2, 9, 3), "range(2, 9, 3)"),
    ("slice", slice(1, 2), "slice(1, 2)"),
    ("bytearray", bytearray(b"a\xff\xc3\xa9"), "bytearray(b'a\\xff\\xc3\\xa9')"),
    ("array", array.array("i", [1, 2]), "array.array('i', [1, 2])"),
    ("regular expression", re.compile("a+b"), "value.pattern == 'a+b' and value.match('aab')"),
    ("regular expression with flags", re.compile("a+b", re.I), "value.match('AAB')"),
    ("partial", functools.partial(operator.add, 1), "value(2) == 3"),
    (
        "partial with keywords",
        functools.partial(app.echo, 1, word=CAFE),
        "value(2) == ((1, 2), {'word': 'caf\\xe9'})",
    ),
    ("StringIO", StringIO.StringIO("abc"), "type(value) is io.StringIO and value.read() == 'abc'"),
    ("StringIO of utf-8", StringIO.StringIO(CAFE), "value.getvalue() == 'caf\\xe9'"),
    (
        "StringIO of bytes",
        StringIO.StringIO(BLOB),
        "type(value) is io.BytesIO and value.read() == b'\\x00\\xff\\xfe\\x80'",
    ),
    (
        "UserDict",
        UserDict.UserDict({"a": 1}),
        "type(value) is collections.UserDict and value.data == {'a': 1}",
    ),
    (
        "IterableUserDict",
        UserDict.IterableUserDict({"a": 1}),
        "type(value) is collections.UserDict and value['a'] == 1",
    ),
    (
        "UserList",
        UserList.UserList([1]),
        "type(value) is collections.UserList and value.data == [1]",
    ),
    ("ValueError", ValueError("bad"), "type(value) is ValueError and value.args == ('bad',)"),
    ("exception with utf-8 message", ValueError(CAFE), "value.args == ('caf\\xe9',)"),
    ("exception with binary message", ValueError(BLOB), "value.args == (b'\\x00\\xff\\xfe\\x80',)"),
    ("StandardError", StandardError("x"), "type(value) is Exception and value.args == ('x',)"),
    ("IOError", IOError(2, "gone"), "isinstance(value, OSError) and value.args == (2, 'gone')"),
    ("KeyError", KeyError("k"), "type(value) is KeyError and value.args == ('k',)"),
    ("UnicodeError", UnicodeError("u"), "type(value) is UnicodeError"),
    (
        "URLError",
        urllib2.URLError("x"),
        "type(value) is urllib.error.URLError and value.reason == 'x'",
    ),
    ("Queue.Empty", Queue.Empty(), "type(value) is queue.Empty"),
    ("own exception", app.Failure("a", 1), "type(value) is app.Failure and value.args == ('a', 1)"),
    (
        "old-style instance",
        app.Old("ada"),
        "type(value) is app.Old and vars(value) == {'name': 'ada'}",
    ),
    ("old-style instance with utf-8", app.Old(CAFE), "vars(value) == {'name': 'caf\\xe9'}"),
    (
        "old-style instance with binary",
        app.Old(BLOB),
        "vars(value) == {'name': b'\\x00\\xff\\xfe\\x80'}",
    ),
    (
        "old-style instance with datetime",
        app.Old(datetime.datetime(2020, 1, 2)),
        "vars(value) == {'name': datetime.datetime(2020, 1, 2)}",
    ),
    (
        "old-style instance with arguments",
        app.OldWithArgs(1, CAFE),
        "value.pair == (1, 'caf\\xe9')",
    ),
    (
        "old-style instance with state",
        app.OldWithState(),
        "vars(value) == {'value': 1, 'note': 'state'}",
    ),
    (
        "instance",
        app.New(a=1, b=CAFE),
        "type(value) is app.New and vars(value) == {'a': 1, 'b': 'caf\\xe9'}",
    ),
    (
        "instance with binary",
        app.New(blob=BLOB),
        "vars(value) == {'blob': b'\\x00\\xff\\xfe\\x80'}",
    ),
    (
        "instance of instances",
        app.New(inner=app.New(at=datetime.date(2020, 1, 2))),
        "value.inner.at == datetime.date(2020, 1, 2)",
    ),
    ("instance without state", app.New(), "type(value) is app.New and not vars(value)"),
    ("str subclass", app.Text(CAFE), "type(value) is app.Text and value == 'caf\\xe9'"),
    ("int subclass", app.Number(3), "type(value) is app.Number and value == 3"),
    ("dict subclass", app.Names(a=1), "type(value) is app.Names and value == {'a': 1}"),
    ("list subclass", app.Row([1, CAFE]), "type(value) is app.Row and value == [1, 'caf\\xe9']"),
    ("class", app.New, "value is app.New"),
    ("old-style class", app.Old, "value is app.Old"),
    ("function", app.echo, "value is app.echo"),
    ("type str", str, "value is str"),
    ("type unicode", unicode, "value is str"),
    ("type basestring", basestring, "value is str"),
    ("type int", int, "value is int"),
    ("type long", long, "value is int"),
    ("type file", file, "value is open"),
    ("raw_input", raw_input, "value is input"),
    ("unichr", unichr, "value is chr"),
    ("reload", reload, "value is importlib.reload"),
    ("intern", intern, "value is sys.intern"),
    ("collections.Mapping", collections.Mapping, "value is collections.abc.Mapping"),
    ("collections.Iterable", collections.Iterable, "value is collections.abc.Iterable"),
    ("urllib.quote", urllib.quote, "value is urllib.parse.quote"),
    ("itertools.count", itertools.count, "value is itertools.count"),
    ("itertools.izip", itertools.izip, "value is zip"),
    ("itertools.imap", itertools.imap, "value is map"),
    ("itertools.ifilterfalse", itertools.ifilterfalse, "value is itertools.filterfalse"),
    ("time.clock", time.clock, "value is time.process_time"),
]

_shared = ["shared", CAFE]
VALUES.append(
    (
        "shared list",
        [_shared, _shared],
        "value[0] is value[1] and value[0] == ['shared', 'caf\\xe9']",
    )
)
_loop = []
_loop.append(_loop)
VALUES.append(("list that holds itself", _loop, "value[0] is value"))
_stream = StringIO.StringIO()
_stream.write("abc")
_stream.write("def")
_stream.seek(4)
VALUES.append(("StringIO halfway", _stream, "value.read() == 'ef'"))
VALUES.append(("StringIO twice", [_stream, _stream], "value[0] is value[1]"))

# name, call in Python 2, and the value in Python 3 of what it returns.
CALLS = [
    ("cmp", (cmp, (1, 2), {}), "-1"),
    ("cmp of equals", (cmp, ("a", "a"), {}), "0"),
    ("apply", (apply, (app.echo, (1,), {"b": 2}), {}), "((1,), {'b': 2})"),
    ("reduce", (reduce, (operator.add, [1, 2, 3]), {}), "6"),
    ("map", (map, (len, ["a", "bc"]), {}), "[1, 2]"),
    ("map of two lists", (map, (None, [1, 2, 3], "ab"), {}), "[(1, 'a'), (2, 'b'), (3, None)]"),
    ("filter", (filter, (None, [0, 1, 2]), {}), "[1, 2]"),
    ("filter of a str", (filter, (operator.truth, "abc"), {}), "'abc'"),
    ("filter of a tuple", (filter, (None, (0, 1)), {}), "(1,)"),
    ("zip", (zip, ([1, 2], "abc"), {}), "[(1, 'a'), (2, 'b')]"),
    ("range", (range, (3,), {}), "[0, 1, 2]"),
    ("string.upper", (string.upper, ("abc",), {}), "'ABC'"),
    ("string.join", (string.join, (["a", "b"], "-"), {}), "'a-b'"),
    ("string.join by blanks", (string.join, (["a", "b"],), {}), "'a b'"),
    ("string.split", (string.split, ("a b",), {}), "['a', 'b']"),
    ("string.splitfields", (string.splitfields, ("a,b", ","), {}), "['a', 'b']"),
    ("string.replace", (string.replace, ("aaa", "a", "b", 2), {}), "'bba'"),
    ("string.atoi", (string.atoi, ("ff", 16), {}), "255"),
    ("string.atof", (string.atof, ("1.5",), {}), "1.5"),
    ("string.zfill", (string.zfill, (7, 3), {}), "'007'"),
    ("string.find", (string.find, ("abc", "c"), {}), "2"),
    ("string.strip", (string.strip, (" a ",), {}), "'a'"),
    (
        "string.translate",
        (string.translate, ("abc", "".join(map(chr, range(256))).replace("a", "z"), "c"), {}),
        "'zb'",
    ),
    ("string.capwords", (string.capwords, ("ab cd",), {}), "'Ab Cd'"),
    ("operator.div", (operator.div, (7, 2), {}), "3"),
    ("operator.div of floats", (operator.div, (7.0, 2), {}), "3.5"),
    ("operator.isCallable", (operator.isCallable, (len,), {}), "True"),
    ("operator.sequenceIncludes", (operator.sequenceIncludes, ([1], 1), {}), "True"),
    ("operator.isSequenceType", (operator.isSequenceType, ([],), {}), "True"),
    ("operator.isMappingType", (operator.isMappingType, ({},), {}), "True"),
    ("operator.isNumberType", (operator.isNumberType, (long(1),), {}), "True"),
    ("operator.getslice", (operator.getslice, ([1, 2, 3], 0, 2), {}), "[1, 2]"),
    ("operator.repeat", (operator.repeat, ("ab", 2), {}), "'abab'"),
    ("itertools.izip", (itertools.izip, ([1], [2]), {}), "list(value) == [(1, 2)]"),
    ("urllib.quote", (urllib.quote, ("a b",), {}), "'a%20b'"),
    ("urllib.urlencode", (urllib.urlencode, ([("a", 1)],), {}), "'a=1'"),
    ("os.getcwdu", (os.getcwdu, (), {}), "value == os.getcwd()"),
    (
        "keyword arguments",
        (app.echo, (1,), {"word": CAFE, "blob": BLOB}),
        "((1,), {'word': 'caf\\xe9', 'blob': b'\\x00\\xff\\xfe\\x80'})",
    ),
    ("keyword named in binary", (app.echo, (), {"\xe9": 1}), "((), {'\\xe9': 1})"),
    (
        "method of an old-style instance",
        (invoke_member, (app.Old("ada"), "greet", "hi"), {"mark": "?"}),
        "('ada', 'hi', '?')",
    ),
    (
        "method of an instance",
        (invoke_member, (app.New(name=CAFE), "greet", "hi"), {}),
        "('caf\\xe9', 'hi', '!')",
    ),
    ("class method", (invoke_member, (app.New, "make", "hi"), {}), "('New', 'hi')"),
    (
        "method of a datetime",
        (invoke_member, (datetime.datetime(2020, 1, 2), "isoformat"), {}),
        "'2020-01-02T00:00:00'",
    ),
    ("callable instance", (app.New(name="ada"), ("hi",), {}), "('ada', 'hi', 'called')"),
    ("class called", (app.Old, ("ada",), {}), "value.name == 'ada'"),
    ("partial called", (functools.partial(app.echo, 1), (2,), {}), "((1, 2), {})"),
    (
        "datetime as the only argument",
        (app.echo, (datetime.datetime(2020, 1, 2, 3, 4, 5, 678),), {}),
        "((datetime.datetime(2020, 1, 2, 3, 4, 5, 678),), {})",
    ),
]


def payloads(call):
    """Yield how it was pickled and the bytes; the deferred library used pickle's protocol 2."""
    data = pickle.dumps(call, 2)
    yield "pickle 2", data
    if len(data) > 4000:
        return
    for protocol in (0, 1):
        yield "pickle %d" % protocol, pickle.dumps(call, protocol)
    yield "cPickle 2", cPickle.dumps(call, 2)


def cases():
    for kind, rows in (("value", VALUES), ("call", CALLS)):
        for name, made, expected in rows:
            call = made if kind == "call" else (app.echo, (made,), {})
            found = list(payloads(call))
            yield collections.OrderedDict(
                [
                    ("kind", kind),
                    ("name", name),
                    ("expected", expected),
                    (
                        "payloads",
                        collections.OrderedDict(
                            (how, base64.b64encode(data)) for how, data in found
                        ),
                    ),
                ]
            )


def main():
    assert sys.version_info[:2] == (2, 7), "run this with Python 2.7"
    rows = list(cases())
    with open(os.path.join(HERE, "python2_cases.json"), "wb") as out:
        out.write(json.dumps(rows, indent=0, separators=(",", ":")) + "\n")
    print("%d cases, %d payloads" % (len(rows), sum(len(row["payloads"]) for row in rows)))


if __name__ == "__main__":
    main()
