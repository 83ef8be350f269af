"""What a task costs besides its own work: ``application.post(environ)`` with a small payload.

Ours and Google's SDK get the same requests, as App Engine sends them, in turns round by round.
The floor is reading the body, unpickling it and calling. The SDK's environment is named by
AEC_TEST_SDK_PYTHON (``make bench`` sets it); without it the SDK is left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

ROUNDS = 9
PROGRAM = """
import io, pickle, sys, time
from google.appengine.ext import deferred
def floor(environ):
    call, args, kwargs = pickle.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    call(*args, **kwargs)
handle = floor if sys.argv[1] == "floor" else deferred.application.post
body = deferred.serialize(print, end="")
request = {
    "REQUEST_METHOD": "POST", "PATH_INFO": "/_ah/queue/deferred", "QUERY_STRING": "",
    "SERVER_NAME": "localhost", "SERVER_PORT": "8080", "SERVER_SOFTWARE": "gunicorn/20",
    "REMOTE_ADDR": "0.1.0.2", "CONTENT_TYPE": "application/octet-stream",
    "CONTENT_LENGTH": str(len(body)), "HTTP_HOST": "app.example.com", "HTTP_USER_AGENT": "tasks",
    "HTTP_X_APPENGINE_TASKNAME": "task1", "HTTP_X_APPENGINE_QUEUENAME": "default",
    "HTTP_X_APPENGINE_TASKRETRYCOUNT": "0", "HTTP_X_APPENGINE_TASKEXECUTIONCOUNT": "0",
    "HTTP_X_APPENGINE_TASKETA": "1700000000.0", "wsgi.url_scheme": "http",
}
best = float("inf")
for _ in range(3):
    requests = [{**request, "wsgi.input": io.BytesIO(body)} for _ in range(5000)]
    started = time.process_time()
    for environ in requests:
        handle(environ)
    best = min(best, time.process_time() - started)
print(best / 5000 * 1e6)
"""


def measure(python: str, what: str) -> float:
    """Return the processor's microseconds for one task."""
    environment = {**os.environ, "GAE_ENV": "standard", "GAE_APPLICATION": "s~benchmark"}
    done = subprocess.run(
        [python, "-c", PROGRAM, what],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    sdk = os.environ.get("AEC_TEST_SDK_PYTHON", "")
    contenders = {"floor": (sys.executable, "floor"), "ours": (sys.executable, "post")}
    if sdk:
        contenders["Google's SDK"] = (sdk, "post")
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            figures[name].append(measure(*contender))
    middle = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        beside = "" if name == "ours" else f"{middle[name] / middle['ours']:.2f}x ours"
        print(
            f"post, small payload: {name}\t{middle[name]:.2f} us cpu "
            f"({min(values):.2f}..{max(values):.2f})\t{beside}"
        )
    if not sdk:
        print("Google's SDK was left out: AEC_TEST_SDK_PYTHON is not set.")


if __name__ == "__main__":
    main()
