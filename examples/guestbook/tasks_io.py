"""The py3-tasks-io service: work that other services hand over."""

import journal
from flask import Flask, abort, request
from google.appengine.api import wrap_wsgi_app
from google.appengine.ext import deferred

app = Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app, use_deferred=True)


@app.route("/tasks/math/do/points/<event>")
def points(event):
    if "X-AppEngine-QueueName" not in request.headers:
        abort(403)
    journal.ran("GET /tasks/math/do/points/" + event, "py3-tasks-io")
    return ""


@app.route("/_ah/queue/deferred_notification_send", methods=["POST"])
def send_notifications():
    return deferred.application.post(request.environ)
