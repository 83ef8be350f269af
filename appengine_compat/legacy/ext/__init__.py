"""``google.appengine.ext``: deferred and testbed."""
