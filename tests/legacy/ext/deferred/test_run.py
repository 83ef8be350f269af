"""``serialize`` and ``run``: a call becomes bytes, and the bytes the call."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import datetime
import functools
import operator
import pickle
import pickletools
from typing import Any

import pytest
from google.appengine.ext import deferred
from google.appengine.ext.deferred import deferred as submodule

seen: list[Any] = []
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def record(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    seen.append((args, kwargs))
    return (args, kwargs)


def unwrapping(function: Any) -> Any:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Account:
    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, word: str) -> str:
        return f"{word}, {self.name}"

    @classmethod
    def make(cls, name: str) -> str:
        return f"{cls.__name__} {name}"

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    def __call__(self, word: str) -> str:
        return f"{word}! {self.name}"

    def __hidden(self) -> str:
        return f"hidden {self.name}"

    def hidden(self) -> Any:
        return self.__hidden

    @unwrapping
    def decorated(self) -> str:
        return f"decorated {self.name}"


async def later(number: int) -> int:
    await asyncio.sleep(0)
    seen.append(number)
    return number + 1


async def reading() -> str:
    return variable.get()


async def failing() -> None:
    raise deferred.SingularTaskFailure("not yet")


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


class TestRoundTrip:
    def test_returns_what_the_function_returns(self) -> None:
        assert deferred.run(deferred.serialize(record, 1, k=2)) == ((1,), {"k": 2})

    @pytest.mark.parametrize(
        ("obj", "args", "expected"),
        [
            (Account("ada").greet, ("hi",), "hi, ada"),
            (Account.make, ("x",), "Account x"),
            (Account("ada"), ("hi",), "hi! ada"),
            (Account.double, (4,), 8),
            (len, ("abc",), 3),
            (operator.add, (1, 2), 3),
            ([3].__len__, (), 1),
            ([1, 2].count, (2,), 1),
            ("-".join, (["a", "b"],), "a-b"),
            ("".join, (["a", "b"],), "ab"),
            (datetime.datetime(2020, 1, 2).isoformat, (), "2020-01-02T00:00:00"),
            (dict.fromkeys, ("a",), {"a": None}),
            (str.upper, ("a",), "A"),
            (datetime.date, (2020, 1, 2), datetime.date(2020, 1, 2)),
            (functools.partial(operator.sub, 5), (2,), 3),
            (functools.partial(record, a=1), (2,), ((2,), {"a": 1})),
        ],
        ids=lambda value: getattr(value, "__qualname__", None),
    )
    def test_every_kind_of_callable(self, obj: Any, args: Any, expected: Any) -> None:
        assert deferred.run(deferred.serialize(obj, *args)) == expected

    def test_a_method_is_called_by_the_name_it_has_on_its_class(self) -> None:
        """App Engine used the function's own name, and the task failed when it ran."""
        assert deferred.run(deferred.serialize(Account("ada").hidden())) == "hidden ada"
        assert deferred.run(deferred.serialize(Account("ada").decorated)) == "decorated ada"

    @pytest.mark.parametrize("name", ["obj", "membername", "self", "data"])
    def test_keyword_arguments_of_any_name(self, name: str) -> None:
        assert deferred.run(deferred.serialize(record, **{name: 1})) == ((), {name: 1})
        curried = submodule._curry_callable(Namesake().method, **{name: 1})
        assert curried[0](*curried[1], **curried[2]) == {name: 1}

    def test_what_cannot_be_called(self) -> None:
        with pytest.raises(ValueError, match=r"^obj must be callable$"):
            deferred.serialize(5)


class Namesake:
    def method(*args: Any, **kwargs: Any) -> Any:
        return kwargs


class TestPayload:
    def test_names_the_submodules_invoke_member_for_methods(self) -> None:
        strings = [
            arg
            for _, arg, _ in pickletools.genops(deferred.serialize(Account("a").greet, "b"))
            if isinstance(arg, str)
        ]
        place = strings.index("google.appengine.ext.deferred.deferred")
        assert strings[place + 1] == "invoke_member"

    def test_is_a_plain_pickle(self) -> None:
        assert pickle.loads(deferred.serialize(record, 1, b=2)) == (record, (1,), {"b": 2})

    def test_has_the_highest_protocol(self) -> None:
        assert deferred.serialize(record)[:2] == bytes([0x80, pickle.HIGHEST_PROTOCOL])

    def test_googles_variable_makes_it_protocol_0_whatever_its_text(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL", "False")
        payload = deferred.serialize(record, "caf\xe9")
        assert payload[:1] == b"("
        assert deferred.run(payload) == (("caf\xe9",), {})

    def test_the_setting_makes_it_readable_for_python_2(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL", "1")
        monkeypatch.setenv("APPENGINE_COMPAT_PICKLE_PROTOCOL", "2")
        assert deferred.serialize(record)[:2] == b"\x80\x02"

    @pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_may_be_wrapped_in_base64(self, encode: Any, protocol: int) -> None:
        payload = pickle.dumps((record, ("\xff\xfe?>" * 20,), {}), protocol)
        assert deferred.run(encode(payload)) == (("\xff\xfe?>" * 20,), {})
        assert deferred.run(encode(payload).rstrip(b"=") + b"\n") == (("\xff\xfe?>" * 20,), {})

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_may_be_any_kind_of_bytes(self, kind: Any) -> None:
        assert deferred.run(kind(deferred.serialize(record, 1))) == ((1,), {})
        assert deferred.run(kind(pickle.dumps((record, (1,), {}), 0))) == ((1,), {})


class TestUnreadable:
    @pytest.mark.parametrize(
        "data",
        [
            b"", b"xx", b"\x80", b"\x80\x05", "text", None, b"\xff" * 10, b"(((((", b"abcd",
            pickle.dumps((record, ())), pickle.dumps(5), pickle.dumps((record, (), {}))[:-3],
            pickle.dumps((record, (), {}), 0).replace(b"record", b"absent"),
            b"\x80\x02cno_such_module_here\nf\n)}\x87.", b"\x80\x06N.",
        ],
    )  # fmt: skip
    def test_is_a_permanent_failure_with_its_cause(self, data: Any) -> None:
        with pytest.raises(deferred.PermanentTaskFailure) as caught:
            deferred.run(data)
        assert caught.value.args == (caught.value.__context__,)

    @pytest.mark.parametrize("error", [KeyError, deferred.SingularTaskFailure, OSError])
    def test_what_the_function_raises_passes_through(self, error: type[Exception]) -> None:
        with pytest.raises(error):
            deferred.run(pickle.dumps((throw, (error,), {})))

    def test_what_cannot_be_called_is_not_permanent(self) -> None:
        with pytest.raises(TypeError):
            deferred.run(pickle.dumps((5, (), {})))


def throw(error: type[Exception]) -> None:
    raise error("thrown")


class TestCoroutines:
    def test_run_to_their_end(self) -> None:
        assert deferred.run(deferred.serialize(later, 1)) == 2
        assert seen == [1]

    def test_run_where_an_event_loop_runs_already(self) -> None:
        payload = deferred.serialize(later, 1)

        async def server() -> Any:
            return deferred.run(payload)

        assert asyncio.run(server()) == 2

    def test_see_the_context_of_the_request(self) -> None:
        async def server() -> Any:
            variable.set("in the request")
            return deferred.run(payload)

        payload = deferred.serialize(reading)
        assert asyncio.run(server()) == "in the request"
        token = variable.set("outside")
        assert deferred.run(payload) == "outside"
        variable.reset(token)

    def test_raise_what_they_raise(self) -> None:
        payload = deferred.serialize(failing)

        async def server() -> Any:
            return deferred.run(payload)

        with pytest.raises(deferred.SingularTaskFailure):
            deferred.run(payload)
        with pytest.raises(deferred.SingularTaskFailure):
            asyncio.run(server())


class TestUnpicklable:
    @pytest.mark.parametrize("legacy", [pickle.PicklingError, AttributeError, TypeError])
    def test_is_all_that_old_code_catches(self, legacy: type[Exception]) -> None:
        with pytest.raises(legacy):
            deferred.serialize(lambda: 1)

    def test_a_lambda_is_told_with_its_place_and_what_to_do(self) -> None:
        with pytest.raises(pickle.PicklingError, match=r"lambda .*test_run\.py:\d+.*def") as caught:
            deferred.serialize(lambda: 1)
        assert caught.value.culprit == "the callable"

    def test_a_closure_is_told_what_it_closes_over(self) -> None:
        word = "x"

        def inner() -> str:
            return word

        with pytest.raises(pickle.PicklingError, match=r"inside another function.*pass word as"):
            deferred.serialize(inner)

    def test_a_local_class_is_told(self) -> None:
        class Local:
            pass

        with pytest.raises(pickle.PicklingError, match=r"argument 1 .*Local.*left margin"):
            deferred.serialize(record, Local)

    @pytest.mark.parametrize(
        ("args", "kwargs", "culprit"),
        [
            ((1, open), {}, None),
            ((1, (x for x in ())), {}, "argument 2"),
            ((), {"stream": (x for x in ())}, "argument 'stream'"),
            (({"a": [1, (x for x in ())]},), {}, "argument 1['a'][1]"),
            ((Account((x for x in ())),), {}, "argument 1.name"),  # type: ignore[arg-type]
            (({1: {lambda: 1}},), {}, "argument 1[1] (in the set)"),
        ],
    )
    def test_the_argument_is_named(self, args: Any, kwargs: Any, culprit: str | None) -> None:
        if culprit is None:
            deferred.serialize(record, *args, **kwargs)
            return
        with pytest.raises(TypeError) as caught:
            deferred.serialize(record, *args, **kwargs)
        assert caught.value.culprit == culprit
        assert culprit in str(caught.value)
        assert f"{__name__}.record" in str(caught.value)

    def test_the_object_of_a_method_is_named(self) -> None:
        account = Account("ada")
        account.lock = lambda: 1  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"Account\.greet.*method greet is called\.lock"):
            deferred.serialize(account.greet, "hi")

    def test_what_an_argument_raises_by_itself_passes_through(self) -> None:
        with pytest.raises(OSError, match="no disk"):
            deferred.serialize(record, Refusing())


class Refusing:
    def __reduce__(self) -> Any:
        raise OSError("no disk")
