"""The py3-web service: a public wall of the guestbook's entries."""

import journal
from flask import Flask, abort, request
from google.appengine.api import wrap_wsgi_app
from markupsafe import escape

app = Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app)

PAGE = "<!doctype html><title>Wall</title><h1>The wall</h1><ul>%s</ul>"


@app.route("/")
def wall():
    lines = [
        f"<li><b>{escape(name)}</b> {escape(message)}"
        for name, message, thanked in journal.entries(50)
    ]
    return PAGE % "\n".join(lines)


@app.route("/tasks/wall", methods=["POST"])
def refresh_wall():
    if "X-AppEngine-QueueName" not in request.headers:
        abort(403)
    journal.ran("POST /tasks/wall entry=" + request.form["entry"], "py3-web")
    return ""
