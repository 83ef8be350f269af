"""A request and the tasks that come of it, as the logs of a real server join them."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRACE = "0af7651916cd43dd8448eb211c80319c"
APP = """
import logging
from flask import Flask
from google.appengine.api import taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred
import appengine_compat.logging

line = "LOG %(message)s | %(aec_queue)s | %(aec_function)s | %(aec_trace)s"
appengine_compat.logging.setup().setFormatter(logging.Formatter(line))

def first():
    logging.info("first")
    deferred.defer(second)

def second():
    logging.info("second")

app = Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app, use_deferred=True)

@app.route("/")
def index():
    logging.info("request")
    deferred.defer(first)
    taskqueue.add(url="/own")
    return "ok"

@app.route("/own", methods=["POST"])
def own():
    logging.info("own")
    return "ok"
"""


def test_tasks_and_their_tasks_belong_to_the_trace_of_the_request(
    start_dev: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(APP)
    doors = ("--grpc-port", "0", "--rest-port", "0", "--dashboard-port", "0")
    server = start_dev(tmp_path, *doors, "main:app").ready()
    for number in (1, 2):
        headers = {"X-Cloud-Trace-Context": f"{TRACE}/{number};o=1"} if number == 1 else {}
        request = urllib.request.Request(server.address() + "/", headers=headers)
        urllib.request.urlopen(request, timeout=30).close()
        trace = TRACE if number == 1 else ""
        server.wait_for(rf"^LOG request \|  \|  \| {trace}$")
        server.wait_for(rf"^LOG first \| default \| main\.first \| {trace}$")
        server.wait_for(rf"^LOG second \| default \| main\.second \| {trace}$")
        server.wait_for(rf"^LOG own \| default \| POST /own \| {trace}$")
        server.wait_for(
            rf"^LOG Task \d+ of queue default: main\.second succeeded with 200 in \d+ ms, attempt "
            rf"1, begun \d+\.\d s after it was due \| default \| main\.second \| {trace}$"
        )
