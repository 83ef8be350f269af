"""The default service: the guestbook's page, and what its buttons defer."""

import journal
import work
from flask import Flask, redirect, render_template, request
from google.appengine.api import taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred

app = Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app, use_deferred=True)


@app.route("/")
def index():
    return render_template("page.html", entries=journal.entries(), rows=journal.recent())


@app.route("/sign", methods=["POST"])
def sign():
    name = request.form.get("name", "").strip()[:40] or "Somebody"
    message = request.form.get("message", "").strip()[:120]
    entry_id = journal.sign(name, message)
    journal.deferred(f"thank({name!r})")
    deferred.defer(work.thank, entry_id, name=name)
    taskqueue.add(url="/tasks/wall", params={"entry": entry_id}, target="py3-web")
    return redirect("/", 303)


@app.route("/later", methods=["POST"])
def later():
    journal.deferred("remind('tea is ready')", "in 5 s")
    deferred.defer(work.remind, "tea is ready", _countdown=5, _queue="run-in-order")
    return redirect("/", 303)


@app.route("/flaky", methods=["POST"])
def flaky():
    journal.deferred("import_feed('news.example')")
    deferred.defer(work.import_feed, "news.example")
    return redirect("/", 303)


@app.route("/broken", methods=["POST"])
def broken():
    journal.deferred("charge('4000-0002')")
    deferred.defer(work.charge, "4000-0002")
    return redirect("/", 303)


@app.route("/points", methods=["POST"])
def points():
    journal.deferred("GET /tasks/math/do/points/2019nyny")
    taskqueue.add(
        url="/tasks/math/do/points/2019nyny",
        method="GET",
        target="py3-tasks-io",
        queue_name="default",
    )
    return redirect("/", 303)


@app.route("/notify", methods=["POST"])
def notify():
    journal.deferred("send_notification('Ann')")
    deferred.defer(
        work.send_notification,
        "Ann",
        text="You have a visitor",
        _queue="push-notifications",
        _target="py3-tasks-io",
        _url="/_ah/queue/deferred_notification_send",
        _headers={"X-Reason": "demo"},
    )
    return redirect("/", 303)


@app.route("/do_the_thing", methods=["GET", "POST"])
def do_the_thing():
    journal.deferred("do_expensive_work('a', b='c')")
    deferred.defer(work.do_expensive_work, "a", b="c", _url="/custom/path")
    if request.method == "POST":
        return redirect("/", 303)
    return "Done! deferred expensive work for later."


@app.route("/custom/path", methods=["POST"])
def custom_deferred_handler():
    return deferred.application.post(request.environ)


if __name__ == "__main__":
    app.run(port=8080)
