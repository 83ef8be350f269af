"""Bounded payloads: what the setting names runs, and no way leads out of it."""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import functools
import io
import logging
import pickle
import pickletools
import sys
import uuid
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest
from google.appengine.ext import deferred
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.errors import ConfigError
from appengine_compat.handler import door, kept
from appengine_compat.payload import bounds, pickles
from appengine_compat.payload.bounds import BoundsError
from tests.payload import bounds_app, bounds_other
from tests.payload.bounds_app import Colour, Mode, Point

APP = "tests.payload.bounds_app"
VARIABLE = "APPENGINE_COMPAT_ALLOWED_CALLABLES"


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv(VARIABLE, APP)
    bounds_app.CALLS.clear()
    bounds_other.CALLS.clear()
    bounds.forget_collected()
    yield monkeypatch
    assert bounds_other.CALLS == []


def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    return deferred.run(deferred.serialize(function, *args, **kwargs))


class Made:
    """Pickles as a call of a global by these names, whatever they are."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.parts = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Name:
    """Pickles as the name of a module's attribute, dotted or not."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Writer(pickle._Pickler):  # type: ignore[misc]
    def persistent_id(self, value: Any) -> None: ...

    def save(self, value: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(value, Name):
            super().save(value.module)
            super().save(value.name)
            self.write(pickle.STACK_GLOBAL)
        elif isinstance(value, Made):
            function, arguments = value.parts
            self.save(function)
            self.save(arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, *args, **kwargs)


def written(value: Any) -> bytes:
    stream = io.BytesIO()
    Writer(stream, 4).dump(value)
    return stream.getvalue()


NOTE = Name(APP, "note")
INVOKE = Name("google.appengine.ext.deferred.deferred", "invoke_member")
GETATTR = Name("builtins", "getattr")


def refused(call: Any) -> str:
    """Refuse a hand-made call, as old code sees it; return the reason."""
    with pytest.raises(deferred.PermanentTaskFailure) as caught:
        deferred.run(written(call))
    assert isinstance(caught.value.__cause__, BoundsError), repr(caught.value.__cause__)
    assert bounds_app.CALLS == []
    return str(caught.value)


class TestWhatRuns:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_plain_values_of_all_kinds(self, monkeypatch: Any, protocol: int) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_PICKLE_PROTOCOL", str(protocol))
        values: list[Any] = [
            None, True, 1, 10**50, 2.5, 1j, "é", b"\x00\xff", b"", bytearray(b"x"), [1], (1,),
            {1: 2}, {1}, frozenset({1}), ..., uuid.UUID(int=1), decimal.Decimal("1.5"),
            datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), datetime.timedelta(1),
            datetime.date(2026, 1, 2), collections.OrderedDict(a=1), collections.deque([1]),
            collections.defaultdict(list, a=[1]),
            collections.Counter("aab"), ValueError("x"), KeyError, int, Point(1), Colour.RED,
            zoneinfo.ZoneInfo("UTC"),
        ]  # fmt: skip
        run(bounds_app.note, values, key=values)
        ((args, kwargs),) = bounds_app.CALLS
        assert repr(args) == repr((values,))
        assert repr(kwargs) == repr({"key": values})

    def test_flags(self) -> None:
        run(bounds_app.note, Mode.READ | Mode.WRITE)
        assert bounds_app.CALLS == [((Mode.READ | Mode.WRITE,), {})]

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_methods_partials_and_coroutines(self, monkeypatch: Any, protocol: int) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_PICKLE_PROTOCOL", str(protocol))
        run(Point(1).shift, 2)
        run(Point.make, 4)
        run(functools.partial(bounds_app.note, 5))
        run(functools.partial(Point(1).shift, 5))
        run(bounds_app.later, 7)
        assert [
            ((3,), {}), ((Point(4),), {}), ((5,), {}), ((6,), {}), 7,
        ] == bounds_app.CALLS  # fmt: skip

    def test_a_bound_method_as_an_argument(self) -> None:
        run(bounds_app.note, Point(1).shift)
        assert bounds_app.CALLS[0][0][0](1) == (2,)

    def test_one_function_alone(self, allowed: pytest.MonkeyPatch) -> None:
        allowed.setenv(VARIABLE, f"{APP}.note,{APP}.Point")
        run(bounds_app.note, Point(1), Point.Inner)
        bounds_app.CALLS.clear()
        assert "bounds_app.numbers" in refused((Name(APP, "numbers"), (), {}))

    def test_a_package_stands_for_what_is_in_it(self, allowed: pytest.MonkeyPatch) -> None:
        allowed.setenv(VARIABLE, "tests.payload.*")
        run(bounds_app.note, 1)
        bounds_app.CALLS.clear()
        allowed.setenv(VARIABLE, "tests.payload.bounds")
        refused((NOTE, (1,), {}))

    def test_payloads_of_python_2(self) -> None:
        deferred.run(b"(ctests.payload.bounds_app\nnote\n(S'caf\\xc3\\xa9'\nt(dp0\nS'a'\nI1\nst.")
        assert bounds_app.CALLS == [(("café",), {"a": 1})]

    def test_without_the_setting_everything_does(self, allowed: pytest.MonkeyPatch) -> None:
        allowed.delenv(VARIABLE)
        deferred.run(pickle.dumps((bounds_other.forbidden, (), {})))
        assert bounds_other.CALLS == ["forbidden"]
        bounds_other.CALLS.clear()


class TestWhatDoesNot:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize(
        "call",
        [
            (bounds_other.forbidden, (), {}),
            (bounds_app.note, (bounds_other.Helper(),), {}),
            (bounds_app.note, ([{"deep": (bounds_other.Helper(),)}],), {}),
            (bounds_app.note, (), {"key": bounds_other.Helper()}),
            (functools.partial(bounds_other.forbidden), (), {}),
            (eval, ("1",), {}),
            (bounds_app.note, (exec,), {}),
        ],
        ids=["function", "argument", "deep", "keyword", "partial", "eval", "exec"],
    )
    def test_names_that_are_not_allowed(self, protocol: int, call: Any) -> None:
        with pytest.raises(deferred.PermanentTaskFailure, match=VARIABLE):
            deferred.run(pickle.dumps(call, protocol))
        assert bounds_app.CALLS == []

    def test_the_error_says_what_to_add(self) -> None:
        reason = refused((Name("tests.payload.bounds_other", "forbidden"), (), {}))
        assert "tests.payload.bounds_other.forbidden" in reason
        assert VARIABLE in reason

    def test_its_module_is_not_even_imported(self) -> None:
        assert "antigravity" not in sys.modules
        refused((Name("antigravity", "open"), (), {}))
        assert "antigravity" not in sys.modules

    @pytest.mark.parametrize(
        "name",
        [
            "os", "os.system", "subprocess.run", "OWN_MODULE.system", "bounds_other.forbidden",
            "note.__globals__", "note.__globals__.get", "note.__class__", "Point.__subclasses__",
            "Point.shift.__globals__", "Point.__init__.__builtins__", "CACHE", "CACHE.update",
            "SESSION.__class__.__init__", "Iterator", "dataclasses.dataclass", "__builtins__",
            "__loader__", "__spec__.loader.get_data",
        ],
    )  # fmt: skip
    def test_what_an_allowed_module_only_imported(self, name: str) -> None:
        refused((NOTE, (Name(APP, name),), {}))

    @pytest.mark.parametrize("owner", [NOTE, Name(APP, "Point"), Made(Name(APP, "numbers")), "x"])
    @pytest.mark.parametrize(
        "attribute", ["__globals__", "__getattribute__", "__class__", "gi_frame", "format", "throw"]
    )
    def test_getattr_gives_members_of_the_app_only(self, owner: Any, attribute: str) -> None:
        if hasattr(owner, "parts") or attribute not in ("gi_frame", "throw"):
            with pytest.raises(deferred.PermanentTaskFailure):
                deferred.run(written((NOTE, (Made(GETATTR, owner, attribute),), {})))
        assert bounds_app.CALLS == []

    def test_invoke_member_is_the_call_or_nothing(self) -> None:
        climb = Made(INVOKE, NOTE, "__getattribute__", "__globals__")
        with pytest.raises(deferred.PermanentTaskFailure):
            deferred.run(written((NOTE, (climb,), {})))
        with pytest.raises(deferred.PermanentTaskFailure):
            deferred.run(written((Made(Name("functools", "partial"), INVOKE), (NOTE, "x"), {})))
        for inner in ("__getattribute__", "__class__", "__init_subclass__"):
            refused((INVOKE, (NOTE, inner, "__globals__"), {}))
        assert bounds_app.CALLS == []
        deferred.run(written((INVOKE, (NOTE, "__call__", 1), {})))
        assert bounds_app.CALLS == [((1,), {})]

    @pytest.mark.parametrize("pack", [tuple, list, collections.deque])
    def test_invoke_member_is_judged_in_whatever_its_arguments_come(self, pack: Any) -> None:
        refused((INVOKE, pack((NOTE, "__getattribute__", "__globals__")), {}))

    def test_a_module_is_never_the_object_though_the_setting_names_it(self) -> None:
        module = Name("tests.payload", "bounds_app")
        refused((INVOKE, (module, "note"), {}))
        refused((NOTE, (module,), {}))

    # Python 3.13 says so of every partial that is got from a class's object.
    @pytest.mark.filterwarnings("ignore:functools.partial will be:FutureWarning")
    @pytest.mark.parametrize("name", ["forbid", "forbid_also"])
    @pytest.mark.parametrize("owner", ["Session", "SESSION"])
    def test_what_a_class_holds_is_not_its_method(self, owner: str, name: str) -> None:
        refused((INVOKE, (Name(APP, owner), name), {}))

    def test_methods_of_plain_values_run(self) -> None:
        counted: Any = deferred.run(written((INVOKE, ([3, 1, 3], "count", 3), {})))
        assert counted == 2
        assert run({"a": 1}.get, "a") == 1
        with pytest.raises(AttributeError):
            deferred.run(written((INVOKE, ([3], "nothing"), {})))

    def test_not_even_where_its_module_is_allowed(self, allowed: pytest.MonkeyPatch) -> None:
        allowed.setenv(VARIABLE, f"{APP},google.appengine.ext.deferred")
        real = Made(GETATTR, INVOKE, "real")
        refused((NOTE, (Made(real, NOTE, "__getattribute__", "__globals__"),), {}))
        refused((NOTE, (Name("google.appengine.ext.deferred.deferred", "pickle.loads"),), {}))

    @pytest.mark.parametrize("name", ["note", "Point", "SESSION"])
    def test_what_belongs_to_the_program_is_not_changed(
        self, allowed: pytest.MonkeyPatch, name: str
    ) -> None:
        allowed.setenv(VARIABLE, f"{APP},{APP}.{name}")
        target = written(Name(APP, name))[:-1]
        state = written((None, {"limit": 99, "__defaults__": (1,)}))[2:-1]
        with pytest.raises(BoundsError, match="belongs to the program"):
            pickles.loads(target + state + pickle.BUILD + pickle.STOP)
        assert bounds_app.Session.limit == 1
        assert not hasattr(bounds_app.SESSION, "__defaults__")

    def test_another_encoding_than_pickles_own(self) -> None:
        refused((NOTE, (Made(Name("_codecs", "encode"), "x", "rot13"),), {}))

    def test_the_registry_of_extensions_is_no_way_around(self) -> None:
        copyreg.add_extension("tests.payload.bounds_other", "forbidden", 0x7E57)
        try:
            data = b"\x80\x02(" + pickle.EXT2 + b"\x57\x7e" + b")}t."
            pickle.loads(data)  # which puts it in the registry's cache
            with pytest.raises(BoundsError):
                pickles.loads(data)
            with pytest.raises(BoundsError):
                pickles.loads(data.replace(b"\x80\x02", b"\x80\x04"))
        finally:
            copyreg.remove_extension("tests.payload.bounds_other", "forbidden", 0x7E57)

    def test_a_size_that_is_not_there_takes_no_memory(self) -> None:
        data = b"\x80\x05" + pickle.BYTEARRAY8 + (1 << 40).to_bytes(8, "little") + b"x."
        with pytest.raises(pickle.UnpicklingError):
            pickles.loads(data)

    def test_python_2s_names_are_judged_by_what_they_mean_today(self) -> None:
        for data in (
            b"(c__builtin__\nexecfile\n(S'/etc/passwd'\nt(dt.",
            b"(c__builtin__\napply\n(ctests.payload.bounds_app\nnote\nt(dt.",
            b"(cos\nsystem\n(S'true'\nt(dt.",
            b"(i__builtin__\neval\n.",
        ):
            with pytest.raises(BoundsError):
                pickles.loads(data)


def test_the_task_is_kept() -> None:
    taken: list[Any] = []
    payload = pickle.dumps((bounds_other.forbidden, (1,), {}))
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/_ah/queue/deferred",
        "CONTENT_LENGTH": str(len(payload)), "wsgi.input": io.BytesIO(payload),
        "HTTP_X_APPENGINE_TASKNAME": "t", door.VERDICT_KEY: door.Verdict(True, door.Trust.LOCAL),
    }  # fmt: skip
    kept.on_permanent_failure(taken.append)
    try:
        _, status, _ = deferred.application.post(environ)
    finally:
        kept.forget_callback(taken.append)
    assert status == 200
    (task,) = taken
    assert task.payload == payload
    assert "tests.payload.bounds_other.forbidden" in task.error


class TestLogOnly:
    def test_everything_runs_and_the_log_has_the_setting(
        self, allowed: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        allowed.setenv(VARIABLE, f"log-only,{APP}.note")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                run(bounds_app.note, Point(1), bounds_other.forbidden, datetime.date(2026, 1, 1))
        assert len(bounds_app.CALLS) == 3
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        expected = f"{VARIABLE}={APP}.Point,{APP}.note,tests.payload.bounds_other.forbidden"
        assert lines[-1].endswith(expected)
        assert bounds.ready_setting() == expected

    def test_the_setting_so_made_is_enough(self, allowed: pytest.MonkeyPatch) -> None:
        calls: list[Any] = [
            (Point(1).shift, 2), (Point.make, 3), (bounds_app.note, Colour.RED, Mode.READ),
            (functools.partial(bounds_app.note, 1),), (bounds_app.later, Point.Inner),
        ]  # fmt: skip
        for protocol in ("2", "5"):
            allowed.setenv("APPENGINE_COMPAT_PICKLE_PROTOCOL", protocol)
            allowed.setenv(VARIABLE, "log-only")
            for call in calls:
                run(*call)
            allowed.setenv(*bounds.ready_setting().split("="))
            for call in calls:
                run(*call)

    def test_python_2(self, allowed: pytest.MonkeyPatch) -> None:
        allowed.setenv(VARIABLE, "log-only")
        deferred.run(b"(ctests.payload.bounds_app\nnote\n(S'caf\\xc3\\xa9'\nt(dp0\nS'a'\nI1\nst.")
        assert bounds_app.CALLS == [(("café",), {"a": 1})]
        assert bounds.ready_setting() == f"{VARIABLE}={APP}.note"


def test_a_name_that_is_none_is_an_error(allowed: pytest.MonkeyPatch) -> None:
    allowed.setenv(VARIABLE, "app tasks")
    with pytest.raises(ConfigError, match="'app tasks' is no dotted name"):
        pickles.loads(pickle.dumps((bounds_app.note, (), {})))


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
NAMES = [b"os\nsystem\n", b"builtins\neval\n", f"{APP}\nnote\n".encode(), b"builtins\ngetattr\n"]


@given(
    st.lists(
        st.sampled_from(OPCODES) | st.sampled_from(NAMES) | st.binary(max_size=6), max_size=40
    ),
    st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"\x80\x05"]),
)
def test_no_bytes_run_what_is_not_allowed(parts: list[bytes], start: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, APP)
        try:
            pickles.loads(start + b"".join(parts) + b".")
        except Exception:  # any way of being unreadable is fine; running is not
            pass
    assert bounds_other.CALLS == []
