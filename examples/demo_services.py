"""The guestbook's three services as three processes, with tasks among them by one database.

`make demo-services` runs it. What it starts could as well be typed in three terminals:

    appengine-compat dev --port 8080 main:app
    appengine-compat dev --port 8081 py3-web=web:app
    appengine-compat dev --port 8082 py3-tasks-io=tasks_io:app

(The page of queues and the other doors are the first one's.)
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

EXAMPLE = Path(__file__).parent / "guestbook"
SERVICES = {"default": "main:app", "py3-web": "web:app", "py3-tasks-io": "tasks_io:app"}
NO_DOORS = ("--grpc-port", "0", "--rest-port", "0", "--dashboard-port", "0")
OURS = (sys.executable, "-u", "-m", "appengine_compat.cli.main")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8080, help="of the first service")
    parser.add_argument("--directory", type=Path, default=EXAMPLE, help="where the example is")
    options = parser.parse_args()
    # SIGINT too: a shell that starts a script in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    started = []
    try:
        run(options.directory, options.port, started)
    finally:
        end(started)


def run(directory, first_port, started):
    # The table says which services there are, so that a mistyped _target is refused at once.
    table = ",".join(
        f"{service}=http://localhost:{first_port + number}"
        for number, service in enumerate(SERVICES)
    )
    environ = {**os.environ, "APPENGINE_COMPAT_BACKEND": "embedded"}
    environ["APPENGINE_COMPAT_TARGETS"] = table
    for number, (service, app) in enumerate(SERVICES.items()):
        process = subprocess.Popen(
            [
                *OURS,
                "dev",
                "--port",
                str(first_port + number),
                *(NO_DOORS if number else ()),
                f"{service}={app}",
            ],
            cwd=directory,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            # In a session of its own: Ctrl-C comes here, and each is ended in its turn.
            start_new_session=os.name == "posix",
        )
        started.append(process)
        threading.Thread(target=show, args=(service, process), daemon=True).start()
    # Whichever ends first, the others are of no use without it.
    while all(process.poll() is None for process in started):
        time.sleep(0.2)


def show(service, process):
    for line in process.stdout:
        print(f"{service:<12} | {line}", end="", flush=True)


def end(started):
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        await_end(process)


def await_end(process):
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
