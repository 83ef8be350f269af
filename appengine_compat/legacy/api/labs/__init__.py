"""``google.appengine.api.labs``: where the task queue was before 2011."""
