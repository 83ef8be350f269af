"""Nothing is dispatched into an app that is still being set up."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

from appengine_compat.backends.embedded_gate import Gate

PATIENCE_SECONDS = 20.0


def opens(gate: Gate) -> bool:
    for _ in range(int(PATIENCE_SECONDS / 0.01)):
        if gate.is_open():
            return True
        threading.Event().wait(0.01)
    return False


def made_in_a_thread(set_up) -> tuple[Gate, threading.Thread]:
    """Run ``set_up(register)`` in a thread of its own; return the gate that register made."""
    gates: list[Gate] = []
    is_made = threading.Event()

    def register() -> None:
        gates.append(Gate(settled_seconds=0.1))
        is_made.set()

    thread = threading.Thread(target=lambda: set_up(register), daemon=True)
    thread.start()
    assert is_made.wait(PATIENCE_SECONDS)
    return gates[0], thread


def test_it_opens_when_the_function_that_sets_up_has_returned():
    gate, thread = made_in_a_thread(lambda register: register())
    thread.join()
    assert gate.is_open()


def test_it_stays_shut_while_the_function_goes_on():
    is_over = threading.Event()

    def set_up(register):
        register()
        while not is_over.is_set():
            pass

    gate, thread = made_in_a_thread(set_up)
    for _ in range(40):
        assert not gate.is_open()
        threading.Event().wait(0.01)
    is_over.set()
    thread.join()
    assert gate.is_open()


def test_it_opens_when_what_is_left_stands_still_in_a_main_loop():
    end = threading.Event()

    def serve(register):
        register()
        end.wait(PATIENCE_SECONDS)

    gate, thread = made_in_a_thread(serve)
    assert opens(gate)
    end.set()
    thread.join()


def dispatched_in(tmp_path, files: dict[str, str], *command: str) -> list[str]:
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


APP = """
    import threading, time
    from appengine_compat.backends.base import TaskRequest
    from appengine_compat.backends.embedded import EmbeddedBackend
    routes = set()
    has_run = threading.Event()
    def app(environ, start_response):
        print("found" if environ["PATH_INFO"] in routes else "missing", flush=True)
        has_run.set()
        start_response("200 OK", [])
        return []
    backend = EmbeddedBackend("tasks.db")
    backend.register_app(app, "default")
    backend.create_tasks("default", [TaskRequest(relative_url="/late")])
    time.sleep(0.8)
    routes.add("/late")
"""


RELOADER = """
    def restart_with_reloader():
        print("ran" if has_run.wait(1.5) else "waited")
    restart_with_reloader()
"""


def test_a_module_that_is_being_imported_is_waited_for(tmp_path):
    files = {"webapp.py": APP, "main.py": "import webapp\nwebapp.has_run.wait(20)\n"}
    assert dispatched_in(tmp_path, files, "main.py") == ["found"]


def test_a_process_that_only_reloads_dispatches_nothing(tmp_path):
    main = APP.replace("time.sleep(0.8)", RELOADER)
    assert dispatched_in(tmp_path, {"main.py": main}, "main.py") == ["waited"]
