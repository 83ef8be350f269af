"""Sends requests through ``wrap_wsgi_app``, one a line as a JSON environ; tells what the app saw.

With the first argument ``ours`` it is ours, beside Google's SDK; else the SDK's own. The second is
the context mode: in one process, the SDK's legacy mode would leave its variables to the other.
"""

import io
import json
import logging
import os
import sys

OURS = sys.argv[1] == "ours"
if OURS:
    import appengine_compat

    appengine_compat.install()

from google.appengine.api import namespace_manager, users, wrap_wsgi_app  # noqa: E402
from google.appengine.runtime import context  # noqa: E402

logging.disable(logging.CRITICAL)
BEFORE = dict(os.environ)


def texts(mapping):
    return {name: value for name, value in mapping.items() if isinstance(value, str)}


def app(environ, start_response):
    start_response("200 OK", [])
    added = {name: value for name, value in os.environ.items() if BEFORE.get(name) != value}
    yield json.dumps(
        {
            "environ": texts(environ),
            "os": added,
            "namespace": namespace_manager.get_namespace(),
            "host": context.get("HTTP_HOST"),
            "is_admin": users.is_current_user_admin(),
        }
    ).encode()


wrapped = wrap_wsgi_app(app, use_legacy_context_mode=sys.argv[2] == "True")

for line in sys.stdin:
    environ = {**json.loads(line), "wsgi.input": io.BytesIO()}
    try:
        body = wrapped(environ, lambda *args: None)
        answer = b"".join(body).decode()
    except Exception as error:
        answer = json.dumps({"raised": type(error).__name__})
    print(answer, flush=True)
