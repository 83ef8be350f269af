"""Where the roads of a task differ, as `test_differences.py` measures it on each of them.

``python -m tests.contract.page`` writes each road's part into its page of the docs.
"""

from __future__ import annotations

from dataclasses import dataclass

APP_ENGINE = "Cloud Tasks, to App Engine"
HTTP = "Cloud Tasks, to an address"
EMBEDDED = "the embedded service"
SERVICES = "the embedded service, with a table"
RQ = "Redis and RQ"

ROADS = (APP_ENGINE, HTTP, EMBEDDED, SERVICES, RQ)

IS_TAKEN = "taken"
IS_REFUSED = "refused at `defer`"


@dataclass(frozen=True)
class Difference:
    """A question that not all roads answer alike."""

    what: str
    answers: tuple[str, ...]
    """One a road, in the order of ``ROADS``."""
    why: str

    def on(self, road: str) -> str:
        return self.answers[ROADS.index(road)]


DIFFERENCES = (
    Difference(
        "the longest dispatch deadline",
        ("24 h 15 s", "30 min", "24 h 15 s", "24 h 15 s", "30 min"),
        "Requests to an address may take half an hour, those to App Engine a day.",
    ),
    Difference(
        "a `PATCH` with a body",
        (IS_REFUSED, IS_TAKEN, IS_REFUSED, IS_REFUSED, IS_TAKEN),
        "App Engine's tasks have a body with `POST` and `PUT` only.",
    ),
    Difference(
        "headers of over 80 KiB",
        (IS_TAKEN, IS_REFUSED, IS_TAKEN, IS_TAKEN, IS_REFUSED),
        "A limit of requests to an address.",
    ),
    Difference(
        "`_target` names a service that is not in the table",
        (IS_TAKEN, IS_REFUSED, IS_TAKEN, IS_REFUSED, IS_REFUSED),
        "App Engine knows its services itself; without a table, tasks of the embedded service wait "
        "for whoever comes to serve them.",
    ),
    Difference(
        "the `User-Agent` that the handler sees",
        (
            "AppEngine-Google; (+http://code.google.com/appengine)",
            "Google-Cloud-Tasks",
            "AppEngine-Google; (+http://code.google.com/appengine)",
            "AppEngine-Google; (+http://code.google.com/appengine)",
            "Google-Cloud-Tasks",
        ),
        "It tells the two kinds of targets apart.",
    ),
    Difference(
        "how a task is called that was given no name",
        ("32 hexadecimal digits", "32 hexadecimal digits", "decimal digits", "decimal digits",
         "decimal digits"),
        "What goes to Cloud Tasks is named before it is sent, so that a call without an answer can "
        "be made again; the others name it as App Engine did.",
    ),
    Difference(
        "a name whose task was purged",
        ("stays taken", "stays taken", "stays taken", "stays taken", "is free at once"),
        "A purge in Redis leaves nothing behind.",
    ),
)  # fmt: skip


def table(road: str, reference: str) -> str:
    """Return what differs on a road from another, in Markdown."""
    lines = [f"| | {reference} | {road} | why |", "|---|---|---|---|"]
    lines += [
        f"| {each.what} | {each.on(reference)} | {each.on(road)} | {each.why} |"
        for each in DIFFERENCES
        if each.on(road) != each.on(reference)
    ]
    return "\n".join(lines) + "\n"
