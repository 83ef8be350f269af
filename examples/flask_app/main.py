"""Deferred tasks in a Flask app, at every path that begins with /_ah/queue/deferred.

appengine-compat dev main:app
"""

import work
from flask import Flask
from google.appengine.api import wrap_wsgi_app
from google.appengine.ext import deferred

from appengine_compat import install_defer_routes, run_after_response

app = Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app)
install_defer_routes(app)


@app.route("/do_the_thing")
def do_the_thing():
    deferred.defer(work.do_expensive_work, "a", b="c")
    deferred.defer(work.clear_the_cache, _url="/_ah/queue/deferred_manipulator_clearCache")

    @run_after_response
    def count():
        work.note("after the response")

    return "Done! deferred expensive work for later."
