"""The guestbook on Redis and RQ: starts Redis, a worker and the example, and ends them together.

`make demo-rq` runs it. What it starts could as well be typed in three terminals:

    redis-server
    appengine-compat rq-worker --workers 2
    appengine-compat dev main:app py3-web=web:app py3-tasks-io=tasks_io:app
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

EXAMPLE = Path(__file__).parent / "guestbook"
SERVICES = ("main:app", "py3-web=web:app", "py3-tasks-io=tasks_io:app")
KEPT = ".appengine-compat/redis"
OURS = (sys.executable, "-m", "appengine_compat.cli.main")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8080, help="of the first service")
    parser.add_argument("--directory", type=Path, default=EXAMPLE, help="where the example is")
    options = parser.parse_args()
    if os.name != "posix":
        sys.exit("RQ's workers need fork(), which Windows has not: use WSL.")
    if shutil.which("redis-server") is None:
        sys.exit(
            "This needs Redis, which is not installed: apt-get install redis-server (Debian, "
            "Ubuntu), brew install redis (macOS)."
        )
    # SIGINT too: a shell that starts a script in the background has it ignored. SIGHUP: the
    # terminal was closed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    started = []
    try:
        run(options.directory, options.port, started)
    finally:
        end(started)


def run(directory, first_port, started):
    folder = directory / KEPT
    folder.mkdir(parents=True, exist_ok=True)
    redis_port = free_port()
    redis_url = f"redis://localhost:{redis_port}/0"
    services = [service.rpartition("=")[0] or "default" for service in SERVICES]
    environ = {
        **os.environ,
        "APPENGINE_COMPAT_BACKEND": "rq",
        "APPENGINE_COMPAT_REDIS_URL": redis_url,
        "APPENGINE_COMPAT_TARGETS": ",".join(
            f"{service}=http://localhost:{first_port + number}"
            for number, service in enumerate(services)
        ),
        "APPENGINE_COMPAT_SIGNING_KEYS": f"demo:{signing_secret(folder)}",
    }

    def start(*command):
        # In a session of their own: Ctrl-C comes here, and each is ended in its turn.
        process = subprocess.Popen(command, cwd=directory, env=environ, start_new_session=True)
        started.append(process)
        return process

    start(
        "redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder),
        "--appendonly", "yes", "--save", "", "--logfile", str(folder / "redis.log"),
    )  # fmt: skip
    await_port(redis_port)
    print(f"Redis keeps the tasks in {folder}, at {redis_url}.")
    print(f"To look at them: pip install rq-dashboard six && rq-dashboard --redis-url {redis_url}")
    print("and open http://localhost:9181", flush=True)
    start(*OURS, "rq-worker", "--workers", "2")
    start(*OURS, "dev", "--port", str(first_port), *SERVICES)
    # Whichever ends first, the others are of no use without it.
    while all(process.poll() is None for process in started):
        time.sleep(0.2)


def signing_secret(folder):
    """The same at each start, since tasks of the last one may still wait."""
    path = folder / "signing-secret"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def await_port(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("Redis does not answer.")


def end(started):
    """The apps first, then the worker once its tasks are done, then Redis."""
    for process in reversed(started):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
