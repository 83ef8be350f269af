"""What the tests of users' apps use: the stub's engine, the pytest plugin, a local Cloud Tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appengine_compat.testing.cloud_tasks import LocalCloudTasks, local_cloud_tasks

__all__ = ["LocalCloudTasks", "local_cloud_tasks"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin, and with it this package, in every project of the environment.
    if name in __all__:
        from appengine_compat.testing import cloud_tasks

        return getattr(cloud_tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
