"""Calls too large for a task of App Engine's size: 102,400 bytes.

Beside Google's SDK the payload is stored in the datastore, as App Engine's library did, so that
either library can run what the other has enqueued. Alone it goes straight to the backend, which
takes ten times as much.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from google.appengine.ext.deferred import deferred

if TYPE_CHECKING:
    from google.appengine.api import taskqueue

_SDK_NEEDED = (
    "{name} is Google's SDK's: install it (pip install appengine-python-standard) and call "
    "appengine_compat.install() first. appengine-compat itself needs no datastore."
)


def add(
    payload: bytes, queue: str, options: dict[str, Any], adding: dict[str, Any]
) -> taskqueue.Task:
    """Add a call whose payload is larger than App Engine's tasks.

    Args:
        payload: the pickle.
        queue: the queue's name.
        options: for ``Task``, the payload left out.
        adding: for ``Task.add``.

    Returns:
        The task as added: beside the SDK the small one that names the stored payload.

    Raises:
        taskqueue.Error: the task is refused, or cannot be added; nothing stays stored then.
    """
    if _datastore() is None or _is_in_transaction():
        # In a transaction an entity of its own could need a cross-group one, and would be
        # bound to the commit even where the task is not.
        return _add_whole(payload, queue, options, adding)
    entity = deferred._DeferredTaskEntity(data=payload)
    try:
        key = entity.put()
    except Exception:
        logging.info(
            "A payload of %d bytes could not be stored in the datastore; its task carries it",
            len(payload),
            exc_info=True,
        )
        return _add_whole(payload, queue, options, adding)
    try:
        pointer = deferred.serialize(deferred.run_from_datastore, str(key))
        task = deferred._taskqueue().Task(payload=pointer, **options)
        small: taskqueue.Task = task.add(queue, **adding)
    except BaseException:
        entity.delete()
        raise
    return small


def _add_whole(
    payload: bytes, queue: str, options: dict[str, Any], adding: dict[str, Any]
) -> taskqueue.Task:
    task = deferred._taskqueue().Task(payload=payload, _size_check=False, **options)
    large: taskqueue.Task = task.add(queue, **adding)
    return large


def run_stored(key: str) -> Any:
    """Make the call whose payload is stored, then remove it unless it will be tried again."""
    if _datastore() is None:
        raise deferred.PermanentTaskFailure(
            f"The payload of this task lies in the datastore under the key {key!r}. "
            + _SDK_NEEDED.format(name="Reading it")
        )
    entity = deferred._DeferredTaskEntity.get(key)
    if entity is None:
        raise deferred.PermanentTaskFailure(
            f"The payload of this task was in the datastore under the key {key!r}, and is gone: "
            "the task has run before, or something deleted it."
        )
    try:
        result = deferred.run(entity.data)
    except deferred.PermanentTaskFailure:
        _remove(entity, key)
        raise
    _remove(entity, key)
    return result


def _remove(entity: Any, key: str) -> None:
    try:
        entity.delete()
    except Exception:
        # The call was made; failing now would only make it a second time.
        logging.warning("The stored payload %s of a task that has run stays", key, exc_info=True)


def require_db(name: str) -> Any:
    """Return the SDK's ``google.appengine.ext.db``.

    Args:
        name: what asks for it.

    Raises:
        AttributeError: there is none; the text says what to install.
    """
    db = _datastore()
    if db is None:
        raise AttributeError(_SDK_NEEDED.format(name=name))
    return db


def entity_class() -> type:
    """Return the model of stored payloads, made once, of the SDK's ``db``.

    Raises:
        AttributeError: there is no SDK.
    """
    db = require_db("_DeferredTaskEntity")
    found: type | None = vars(deferred).get("_DeferredTaskEntity")
    if found is None:
        found = type(
            "_DeferredTaskEntity",
            (db.Model,),
            {
                "__module__": deferred.__name__,
                "__doc__": "A payload too large for a task.",
                "data": db.BlobProperty(required=True),
            },
        )
        vars(deferred)["_DeferredTaskEntity"] = found
    return found


def _datastore() -> Any:
    try:
        return importlib.import_module("google.appengine.ext.db")
    except ImportError:
        return None


def _is_in_transaction() -> bool:
    db = importlib.import_module("google.appengine.ext.db")
    ndb = importlib.import_module("google.appengine.ext.ndb")
    return bool(db.is_in_transaction() or ndb.in_transaction())
