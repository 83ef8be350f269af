"""``appengine-compat tasks``: what failed for good is seen, run again, or dropped."""

from __future__ import annotations

import io
import json
import logging
import queue
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.appengine.ext import deferred

from appengine_compat import settings
from appengine_compat.backends import choice
from appengine_compat.backends.base import TaskRequest
from appengine_compat.backends.embedded import EmbeddedBackend
from appengine_compat.backends.stub import StubBackend
from appengine_compat.cli.main import main
from appengine_compat.core.model import RetryOverrides
from appengine_compat.handler import kept

RAN: queue.Queue[Any] = queue.Queue()
CLEAR_SCREEN = "\x1b[2J"


def work(what: str, gives_up: bool = False) -> None:
    if gives_up:
        raise deferred.PermanentTaskFailure(f"No room for {what}")
    RAN.put(what)


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"].startswith("/_ah/queue/deferred"):
        return deferred.application(environ, start_response)
    start_response("503 Service Unavailable", [])
    return [b""]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for variable in ("GAE_ENV", "K_SERVICE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    settings.configure(db=None)


@pytest.fixture
def backend(directory: Path) -> Iterator[EmbeddedBackend]:
    """Runs tasks of this directory's database until it is closed."""
    backend = EmbeddedBackend(settings.DB.get())
    backend.register_app(app, "default")
    yield backend
    backend.close()


def fail(backend: EmbeddedBackend, what: str = "cake", name: str = "one") -> None:
    """Let one task give up, and another one spend its attempts."""
    ended: queue.Queue[str] = queue.Queue()
    backend.observe(lambda event: ended.put(event.task_id))
    call = deferred.serialize(work, what, gives_up=True)
    for request in (
        TaskRequest(relative_url="/_ah/queue/deferred", payload=call, name=name),
        TaskRequest(
            relative_url="/other?a=1",
            name=f"{name}-other",
            method="PUT",
            payload=b"\x00",
            headers=(("X-Reason", CLEAR_SCREEN),),
            retry=RetryOverrides(max_attempts=1),
        ),
    ):
        backend.create_tasks("default", [request])
        assert ended.get(timeout=30) == request.name
    backend.close()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; return exit code, output and what it complains of."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["tasks", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


class TestKept:
    def test_lists_what_failed_and_why(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        code, out, err = run("kept")
        heading, first, second = out.splitlines()
        assert (code, err) == (0, "")
        assert heading.split() == ["ID", "KEPT", "(UTC)", "QUEUE", "WHAT", "ATTEMPTS", "WHY"]
        assert first.startswith("1 ")
        assert "work('cake', gives_up=True)" in first
        assert first.endswith("  PermanentTaskFailure: No room for cake")
        assert "PUT /other?a=1" in second
        assert second.endswith("  attempts spent, at last status 503")

    def test_of_one_queue(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        assert len(run("kept", "--queue", "default")[1].splitlines()) == 3
        assert run("kept", "--queue", "mail")[1] == "Nothing is kept.\n"

    def test_without_a_database_says_where_it_looked_and_makes_none(
        self, run: Run, directory: Path
    ) -> None:
        code, _, err = run("kept")
        assert code == 2
        assert "There is no database at" in err
        assert "APPENGINE_COMPAT_DB" in err
        assert list(directory.iterdir()) == []

    def test_in_another_place(
        self, backend: EmbeddedBackend, run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail(backend)
        (directory / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        assert "cake" in run("kept", "--db", f"../{settings.DB.default}")[1]


class TestShow:
    def test_tells_everything(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        code, out, _ = run("show", "1")
        assert code == 0
        assert "Task:        one" in out
        assert "Request:     POST /_ah/queue/deferred" in out
        assert "Traceback (most recent call last)" in out

    def test_does_nothing_to_the_terminal(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend, what=CLEAR_SCREEN)
        for arguments in (("kept",), ("show", "1"), ("show", "2"), ("show", "1", "--json")):
            assert "\x1b" not in run(*arguments)[1]

    def test_as_a_record_that_can_be_replayed_elsewhere(
        self, backend: EmbeddedBackend, run: Run
    ) -> None:
        fail(backend)
        task = kept.read_record(run("show", "1", "--json")[1])
        assert task.task_name == "one"
        assert task.payload == deferred.serialize(work, "cake", gives_up=True)
        assert "No room for cake" in task.error

    def test_what_is_not_there(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        assert run("show", "9")[::2] == (
            2,
            "appengine-compat tasks: Nothing is kept under 9: see 'appengine-compat tasks kept'.\n",
        )


class TestReplay:
    def test_runs_it_again_once_it_can_succeed(
        self, backend: EmbeddedBackend, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail(backend)
        code, out, _ = run("replay", "1")
        assert code == 0
        assert out.startswith("Replayed 1: ")
        # What was wrong is mended.
        monkeypatch.setitem(globals(), "work", mended)
        mended.__qualname__ = "work"
        backend.start()
        assert RAN.get(timeout=30) == "mended cake"
        assert len(run("kept")[1].splitlines()) == 2

    def test_all(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        code, out, _ = run("replay", "--all")
        assert (code, out.count("Replayed")) == (0, 2)
        assert run("kept")[1] == "Nothing is kept.\n"

    def test_goes_on_after_one_that_cannot(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        code, out, err = run("replay", "9", "1")
        assert code == 1
        assert "Nothing is kept under 9" in err
        assert out.startswith("Replayed 1: ")

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ([], "Say what to replay"),
            (["nope.log"], "nope.log cannot be read"),
            (["1", "--payload", "x"], "--payload goes with the file of one log record"),
        ],
    )
    def test_what_makes_no_sense(self, arguments: list[str], complaint: str, run: Run) -> None:
        code, _, err = run("replay", *arguments)
        assert code == 2
        assert complaint in err


def mended(what: str, gives_up: bool = False) -> None:
    RAN.put(f"mended {what}")


@pytest.fixture
def stub() -> Iterator[StubBackend]:
    """Where this program's tasks go: replayed log records as well."""
    stub = StubBackend()
    choice.activate(stub)
    yield stub
    choice.deactivate(stub)


def log_line(payload: bytes, name: str = "t1", **headers: str) -> str:
    """What a handler writes to the log about a task that failed for good."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/_ah/queue/deferred",
        "CONTENT_TYPE": "application/octet-stream",
        "CONTENT_LENGTH": "9",
        "HTTP_HOST": "worker.example",
        "HTTP_USER_AGENT": "Google-Cloud-Tasks",
        "HTTP_X_APPENGINE_QUEUENAME": "default",
        "HTTP_X_APPENGINE_TASKNAME": name,
        "HTTP_X_APPENGINE_CURRENT_NAMESPACE": "ns1",
        "HTTP_X_CLOUDTASKS_TASKNAME": name,
        "HTTP_X_FORWARDED_FOR": "10.0.0.1",
        "HTTP_X_REASON": "test",
        kept.PAYLOAD_KEY: payload,
    }
    logging.getLogger("appengine_compat.kept").disabled = True
    try:
        task = kept.keep(environ, ValueError("bad"))
    finally:
        logging.getLogger("appengine_compat.kept").disabled = False
    return kept.to_log_line(task)


class TestReplayOfLogRecords:
    def test_enqueues_them_as_they_were_made(
        self, stub: StubBackend, run: Run, directory: Path
    ) -> None:
        (directory / "app.log").write_text(f"ERROR:appengine_compat.kept:{log_line(b'payload')}\n")
        code, out, _ = run("replay", "app.log")
        assert code == 0
        assert "Tasks go to stub" in out
        (task,) = stub.tasks()
        assert task.request.payload == b"payload"
        assert (task.queue, task.request.relative_url) == ("default", "/_ah/queue/deferred")
        assert {name.lower(): value for name, value in task.request.headers} == {
            "content-type": "application/octet-stream",
            "x-appengine-current-namespace": "ns1",
            "x-reason": "test",
        }

    @pytest.mark.parametrize("form", ["lines", "entries", "one entry", "text entries"])
    def test_from_standard_input_in_every_form_that_logs_have(
        self, form: str, stub: StubBackend, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = [log_line(b"1", "a"), log_line(b"2", "b")]
        if form == "one entry":
            lines = lines[:1]
        text = {
            "lines": "\n".join(["something else", *lines, ""]),
            "entries": json.dumps([{"jsonPayload": json.loads(line)} for line in lines], indent=2),
            "one entry": json.dumps({"jsonPayload": json.loads(lines[0])}, indent=2),
            "text entries": json.dumps([{"textPayload": f"ERROR: {line}"} for line in lines]),
        }[form]
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert run("replay", "-")[0] == 0
        assert [task.request.payload for task in stub.tasks()] == [b"1", b"2"][: len(lines)]

    def test_into_the_local_database(self, run: Run, directory: Path) -> None:
        payload = deferred.serialize(work, "from the log")
        (directory / "app.log").write_text(log_line(payload))
        settings.configure(backend="embedded")
        try:
            assert run("replay", "app.log")[0] == 0
        finally:
            settings.configure(backend=None)
        backend = EmbeddedBackend(settings.DB.get())
        backend.register_app(app, "default")
        backend.start()
        assert RAN.get(timeout=30) == "from the log"
        backend.close()

    def test_of_which_one_is_refused(self, stub: StubBackend, run: Run, directory: Path) -> None:
        wrong = json.loads(log_line(b"1", "a"))
        wrong[kept.RECORD_KEY]["queue"] = "nope"
        (directory / "app.log").write_text(f"{json.dumps(wrong)}\n{log_line(b'2', 'b')}\n")
        code, _, err = run("replay", "app.log")
        assert code == 1
        assert "There is no queue 'nope'" in err
        assert [task.request.payload for task in stub.tasks()] == [b"2"]

    def test_that_are_none(self, stub: StubBackend, run: Run, directory: Path) -> None:
        (directory / "app.log").write_text("nothing of the kind\n")
        code, _, err = run("replay", "app.log")
        assert code == 2
        assert "app.log: This is no record of a kept task" in err


class TestPayloadsTooLargeForTheLog:
    @pytest.fixture
    def cut(self, directory: Path) -> Path:
        record = json.loads(log_line(b"large"))
        del record[kept.RECORD_KEY]["payload_base64"]
        path = directory / "cut.json"
        path.write_text(json.dumps(record))
        return path

    def test_are_given_apart(self, cut: Path, stub: StubBackend, run: Run, directory: Path) -> None:
        code, _, err = run("replay", str(cut))
        assert code == 1
        assert "give it by --payload" in err
        (directory / "payload").write_bytes(b"large")
        assert run("replay", str(cut), "--payload", "payload")[0] == 0
        assert [task.request.payload for task in stub.tasks()] == [b"large"]

    def test_must_be_the_right_ones(
        self, cut: Path, stub: StubBackend, run: Run, directory: Path
    ) -> None:
        (directory / "payload").write_bytes(b"other")
        code, _, err = run("replay", str(cut), "--payload", "payload")
        assert code == 2
        assert "SHA-256" in err
        assert stub.tasks() == []


class TestDrop:
    def test_forgets_them(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        assert run("drop", "1") == (0, "Dropped 1.\n", "")
        assert run("drop", "--all") == (0, "Dropped 1.\n", "")
        assert run("kept")[1] == "Nothing is kept.\n"

    @pytest.mark.parametrize("arguments", [[], ["1", "--all"]])
    def test_says_what_it_wants(self, arguments: list[str], run: Run) -> None:
        code, _, err = run("drop", *arguments)
        assert code == 2
        assert "Say what to drop" in err

    def test_drops_nothing_when_one_is_not_there(self, backend: EmbeddedBackend, run: Run) -> None:
        fail(backend)
        code, _, err = run("drop", "1", "9")
        assert code == 2
        assert "Nothing is kept under 9" in err
        assert len(run("kept")[1].splitlines()) == 3

    def test_takes_numbers(self, run: Run) -> None:
        code, _, err = run("drop", "x")
        assert code == 2
        assert "'x' is not a number" in err
