"""Deferred tasks in a FastAPI app: functions run in threads, coroutine functions on the loop.

Tasks come to it over HTTP. On this machine, from a local Cloud Tasks:

    appengine-compat server --queue default

and in another terminal:

    eval "$(appengine-compat server --print-env)"
    export APPENGINE_COMPAT_TARGETS=http://localhost:8080
    export APPENGINE_COMPAT_SERVICE_ACCOUNT=tasks@example.test
    uvicorn main:app --port 8080
"""

import work
from fastapi import FastAPI
from google.appengine.ext import deferred

from appengine_compat.asgi import defer_middleware, deferred_app

api = FastAPI()
# Custom paths of deferred tasks go to the same place.
api.add_route("/custom/path", deferred_app, include_in_schema=False)


@api.get("/do_the_thing")
def do_the_thing():
    deferred.defer(work.do_expensive_work, "a", b="c", _url="/custom/path")
    deferred.defer(work.clear_the_cache, _url="/_ah/queue/deferred_manipulator_clearCache")
    return "Done! deferred expensive work for later."


# Every path that begins with /_ah/queue/deferred; its tasks belong to their requests' traces.
app = defer_middleware(api)
