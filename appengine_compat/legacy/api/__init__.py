"""``google.appengine.api``: taskqueue, queueinfo and ``wrap_wsgi_app``."""
