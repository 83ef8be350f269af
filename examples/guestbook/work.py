"""Ordinary functions that the services defer."""

import os

import journal
from google.appengine.ext import deferred


def thank(entry_id, *, name):
    journal.mark_thanked(entry_id)
    journal.ran(f"thank({name!r})", "default")


def remind(what):
    journal.ran(f"remind({what!r})", "default")


def do_expensive_work(a, *, b):
    journal.ran(f"do_expensive_work({a!r}, b={b!r})", "default")


def import_feed(url):
    """Fail twice, as feeds do, and then succeed."""
    retries = int(os.environ["HTTP_X_APPENGINE_TASKRETRYCOUNT"])
    if retries < 2:
        journal.ran(f"import_feed({url!r})", "default", "failed, to be tried again")
        raise RuntimeError(f"{url} did not answer")
    journal.ran(f"import_feed({url!r})", "default")


def charge(card):
    """Fail for good: no retry will make this card valid."""
    journal.ran(f"charge({card!r})", "default", "failed for good")
    raise deferred.PermanentTaskFailure(f"card {card} was refused")


def send_notification(who, *, text):
    journal.ran(f"send_notification({who!r})", "py3-tasks-io")
