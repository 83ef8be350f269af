"""An old app whose own task handlers, below /tasks/, are kept for tasks.

On App Engine `login: admin` in app.yaml did it. Off App Engine the last line does: a POST of
anybody else to /tasks/count is answered 401 or 403, with a code and what mends it.
"""

from flask import Flask, redirect, request
from google.appengine.api import taskqueue, wrap_wsgi_app

from appengine_compat import require_task

app = Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app, use_deferred=True)

counts = {}


@app.route("/")
def index():
    return "".join(f"<p>{word}: {count}</p>" for word, count in sorted(counts.items()))


@app.route("/say/<word>")
def say(word):
    taskqueue.add(url="/tasks/count", params={"word": word})
    return redirect("/")


@app.route("/tasks/count", methods=["POST"])
def count():
    word = request.form["word"]
    counts[word] = counts.get(word, 0) + 1
    return request.headers["X-AppEngine-TaskName"]


# The same by a variable, for an app that is not to be changed beyond this line:
# require_task(app), with APPENGINE_COMPAT_TASK_PATHS=/_ah/queue/,/tasks/
require_task(app, paths=["/_ah/queue/", "/tasks/"])
