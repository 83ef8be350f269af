"""Deferred tasks in a Django app of one file, at every path that begins with /_ah/queue/deferred.

appengine-compat dev main:application
gunicorn --threads 8 main:application
"""

import work
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from google.appengine.api import taskqueue, wrap_wsgi_app
from google.appengine.ext import deferred

from appengine_compat import install_defer_routes, require_task, run_after_response

settings.configure(
    SECRET_KEY="of an example",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
)


def do_the_thing(request):
    deferred.defer(work.do_expensive_work, "a", b="c")
    deferred.defer(work.clear_the_cache, _url="/_ah/queue/deferred_manipulator_clearCache")
    taskqueue.add(url="/tasks/report", params={"of": "today"})
    run_after_response(lambda: work.note("after the response"))
    return HttpResponse("Done! deferred expensive work for later.")


@require_task
def report(request):
    work.note("report of " + request.POST["of"])
    return HttpResponse()


urlpatterns = [path("do_the_thing", do_the_thing), path("tasks/report", report)]
install_defer_routes(urlpatterns)

application = wrap_wsgi_app(get_wsgi_application())
