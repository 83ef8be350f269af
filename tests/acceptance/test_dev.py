"""``appengine-compat dev`` on small apps: several services, ends, and what it says of errors."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]

HANGING = """
    import threading
    from google.appengine.api import wrap_wsgi_app
    from google.appengine.ext import deferred

    def hang(name):
        print("hanging", name, flush=True)
        threading.Event().wait()

    def start(environ, start_response):
        deferred.defer(hang, "on")
        start_response("200 OK", [])
        return [b"later"]

    app = wrap_wsgi_app(start, use_deferred=True)
"""

WHO = """
    import os
    from google.appengine.api import taskqueue, wrap_wsgi_app

    def answer(environ, start_response):
        queue = environ.get("HTTP_X_APPENGINE_QUEUENAME")
        if environ["PATH_INFO"] == "/enqueue":
            taskqueue.add(url="/run", method="GET")
        elif queue:
            print("ran on", os.environ["GAE_SERVICE"], "by", environ["REMOTE_ADDR"], flush=True)
        start_response("200 OK", [])
        return [repr(queue).encode()]

    app = wrap_wsgi_app(answer)
"""

RAW = """
    from google.appengine.api import taskqueue

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/enqueue":
            taskqueue.add(url="/run", method="GET")
        start_response("200 OK", [])
        return [repr(environ.get("HTTP_X_APPENGINE_QUEUENAME")).encode()]
"""


# A library that is installed, as if it were not.
HIDE = """
    import sys

    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == {library!r}:
                raise ModuleNotFoundError("No module named " + repr(name), name=name)

    sys.meta_path.insert(0, Hidden())
"""


def write(directory: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(source))
    return directory


def test_ctrl_c_tells_what_was_in_flight_and_the_next_start_runs_it_again(
    tmp_path: Path, start_dev: Start
) -> None:
    directory = write(tmp_path, slow=HANGING)
    first = start_dev(directory, "slow:app").ready()
    first.get("/")
    first.wait_for("^hanging on")

    code = first.interrupt()

    assert code == 0
    first.wait_for(r"^Ended\. In flight, and to be run again at the next start: 1$")
    first.wait_for(r"^  default  slow\.hang\('on'\)  attempt 1  running for \d+\.\d s$")
    assert "Traceback" not in first.output
    second = start_dev(directory, "slow:app").ready()
    second.wait_for("^hanging on")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_ends_it_cleanly(tmp_path: Path, start_dev: Start, number: int) -> None:
    server = start_dev(write(tmp_path, who=WHO), "who:app").ready()

    assert server.interrupt(number) == 0
    assert server.lines[-1] == "Ended. Nothing was in flight."
    assert "Traceback" not in server.output


def test_a_second_signal_ends_it_at_once(tmp_path: Path, start_dev: Start) -> None:
    server = start_dev(write(tmp_path, slow=HANGING), "slow:app").ready()
    server.get("/")
    server.wait_for("^hanging on")

    server.process.send_signal(signal.SIGINT)
    server.wait_for("^Ending")

    assert server.interrupt(signal.SIGTERM) == 128 + signal.SIGTERM


def test_a_task_stays_on_the_service_that_enqueued_it(tmp_path: Path, start_dev: Start) -> None:
    server = start_dev(write(tmp_path, who=WHO), "who:app", "worker=who:app").ready()

    server.get("/enqueue", "worker")

    server.wait_for("^ran on worker by 0.1.0.2$")
    server.wait_for(r"  default  worker  GET /run  attempt 1  200")


CALLER = """
    from google.appengine.api import taskqueue

    def app(environ, start_response):
        taskqueue.add(url="/run", method="GET", target="worker")
        start_response("200 OK", [])
        return [b"added"]
"""


def test_a_task_waits_for_the_process_that_has_its_service(
    tmp_path: Path, start_dev: Start
) -> None:
    write(tmp_path, caller=CALLER, who=WHO)
    caller = start_dev(tmp_path, "caller:app").ready()
    caller.get("/")

    worker = start_dev(tmp_path, "worker=who:app").ready()

    worker.wait_for("^ran on worker")
    assert "GET /run" not in caller.output


def test_a_target_that_the_services_file_does_not_know_is_refused_where_it_is_named(
    tmp_path: Path, start_dev: Start
) -> None:
    write(tmp_path, caller=CALLER.replace('target="worker"', 'target="wroker"'))
    (tmp_path / "appengine-compat.toml").write_text(
        '[services]\ndefault = "http://localhost:8080"\nworker = "http://localhost:8081"\n'
    )
    caller = start_dev(tmp_path, "caller:app").ready()

    with pytest.raises(urllib.error.HTTPError):
        caller.get("/")

    caller.wait_for(r"InvalidTaskError: .* no service 'wroker' .* known are: default, worker\. ")


def test_a_broken_services_file_is_told_in_one_line(tmp_path: Path, start_dev: Start) -> None:
    write(tmp_path, who=WHO)
    (tmp_path / "appengine-compat.toml").write_text("[services]\nworker = localhost\n")

    server = start_dev(tmp_path, "who:app")

    server.wait_for(r"^appengine-compat dev: appengine-compat\.toml:2:1: a line is a service and")
    assert server.process.wait(60) == 2
    assert len(server.lines) == 1


@pytest.mark.parametrize("source", [WHO, RAW])
def test_no_app_sees_task_headers_that_anyone_has_sent(
    tmp_path: Path, start_dev: Start, source: str
) -> None:
    server = start_dev(write(tmp_path, one=source), "one:app").ready()

    status, seen = server.post("/page", headers={"X-AppEngine-QueueName": "forged"})

    assert (status, seen) == (200, "None")


def test_the_tasks_of_an_app_that_is_not_wrapped_run_too(tmp_path: Path, start_dev: Start) -> None:
    server = start_dev(write(tmp_path, raw=RAW), "raw:app").ready()

    server.get("/enqueue")

    server.wait_for(r"  default  default  GET /run  attempt 1  200")


def test_options_set_the_queues_and_the_database(tmp_path: Path, start_dev: Start) -> None:
    write(tmp_path, who=WHO)
    (tmp_path / "q.yaml").write_text("queue:\n- name: mail\n  rate: 0.5/s\n")

    server = start_dev(tmp_path, "who:app", "--db", "mine.db", "--queue-yaml", "q.yaml").ready()
    server.get("/enqueue")
    server.wait_for(r"GET /run  attempt 1")
    server.interrupt()

    server.wait_for(r"^Tasks are kept in mine\.db, 0 waiting\. Queues of q\.yaml:$")
    server.wait_for(r"^  mail +0\.5/s")
    server.wait_for(r"^  default +500/s, 1000 at once, given up after 100 attempts$")
    with sqlite3.connect(tmp_path / "mine.db") as connection:
        assert connection.execute("SELECT count(*) FROM queues").fetchone() == (2,)
    connection.close()
    assert not (tmp_path / ".appengine-compat").exists()


def test_a_backend_that_the_user_chose_stands(tmp_path: Path, start_dev: Start) -> None:
    server = start_dev(
        write(tmp_path, who=WHO),
        "who:app",
        APPENGINE_COMPAT_BACKEND="cloudtasks",
        APPENGINE_COMPAT_TARGETS="https://example.test",
        APPENGINE_COMPAT_SERVICE_ACCOUNT="tasks@example.test",
    ).ready()

    server.wait_for("^Tasks go to cloudtasks: APPENGINE_COMPAT_BACKEND is cloudtasks")


def test_an_emulator_elsewhere_does_not_take_the_tasks(tmp_path: Path, start_dev: Start) -> None:
    server = start_dev(
        write(tmp_path, who=WHO), "who:app", CLOUD_TASKS_EMULATOR_HOST="localhost:1"
    ).ready()

    server.get("/enqueue")

    server.wait_for("^ran on default")


def test_the_network_is_let_in_only_when_told_and_that_is_said(
    tmp_path: Path, start_dev: Start
) -> None:
    server = start_dev(write(tmp_path, who=WHO), "who:app", "--host", "0.0.0.0").ready()

    server.wait_for(r"^Listening on 0\.0\.0\.0: whoever reaches this machine reaches the apps\.$")


class TestErrors:
    """Each is one line on stderr, and the exit code 2."""

    def run(self, directory: Path, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "appengine_compat.cli.main", *arguments],
            cwd=directory,
            env={"PATH": "", "HOME": str(directory)} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("appengine-compat")
        return done.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "the following arguments are required: COMMAND"),
            (["devv"], "invalid choice: 'devv'"),
            (["dev"], "the following arguments are required: [NAME=]MODULE:APP"),
            (["dev", "who:app", "--port", "eighty"], "'eighty' is not a port from 0 to 65535"),
            (["dev", "who:app", "--port", "65536"], "'65536' is not a port"),
            (["dev", "who:app", "--nonsense"], "unrecognized arguments: --nonsense"),
            (["dev", "who"], "'who' names no app: write MODULE:APP"),
            (["dev", "nowhere:app"], "There is no module 'nowhere' for nowhere:app"),
            (["dev", "who:aapp"], "Module who has no 'aapp'; did you mean app?"),
            (["dev", "who:os"], "who:os is a module, not a WSGI application"),
            (["dev", "who:app", "who:app"], "would both be service 'default'"),
            (["dev", "who:app", "--queue-yaml", "no.yaml"], "no.yaml: there is no such file"),
            (["dev", "who:app", "--queue-yaml", "bad.yaml"], "bad.yaml:3:9: queue 'mail': rate"),
            (["dev", "who:app", "--queue-yaml", "broken.yaml"], "broken.yaml:2:1: is not YAML"),
            (["dev", "who:app", "--db", "."], "Tasks cannot be kept in"),
        ],
    )
    def test_of_the_command_line(self, tmp_path: Path, arguments: list[str], said: str) -> None:
        write(tmp_path, who=WHO)
        (tmp_path / "bad.yaml").write_text("queue:\n- name: mail\n  rate: fast\n")
        (tmp_path / "broken.yaml").write_text("queue: [\n")

        if "--port" not in arguments and "dev" in arguments:
            arguments = [*arguments, "--port", "0"]
        assert said in self.run(tmp_path, *arguments)

    def test_of_a_busy_port(self, tmp_path: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]

            said = self.run(write(tmp_path, who=WHO), "dev", "who:app", "--port", str(port))

        assert f"Port {port} on 127.0.0.1, for service 'default', is in use" in said

    def test_of_an_unknown_setting(self, tmp_path: Path) -> None:
        said = self.run(write(tmp_path, who=WHO), "dev", "who:app", APPENGINE_COMPAT_TREADS="4")

        assert "did you mean APPENGINE_COMPAT_THREADS?" in said

    @pytest.mark.parametrize(
        ("library", "said"),
        [
            ("waitress", "Serving needs waitress, which is not installed"),
            ("yaml", "queue.yaml cannot be read: that needs PyYAML, which is not installed"),
            ("flask", "shop imports 'flask', which is not installed (shop.py, line 1)"),
        ],
    )
    def test_of_a_missing_library_names_the_extra(
        self,
        tmp_path: Path,
        tmp_path_factory: pytest.TempPathFactory,
        library: str,
        said: str,
    ) -> None:
        write(tmp_path, shop="from flask import Flask\napp = Flask(__name__)\n")
        (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 1/s\n")
        start_up = tmp_path_factory.mktemp("path") / "sitecustomize.py"
        start_up.write_text(textwrap.dedent(HIDE.format(library=library)))

        error = self.run(
            tmp_path, "dev", "shop:app", "--port", "0", PYTHONPATH=str(start_up.parent)
        )

        assert said in error
        assert "pip install 'appengine-compat[dev]'" in error


def test_the_version_is_told() -> None:
    from appengine_compat import __version__

    done = subprocess.run(
        [sys.executable, "-m", "appengine_compat.cli.main", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"appengine-compat {__version__}\n"
