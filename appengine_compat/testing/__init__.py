"""What the tests of users' apps use: the stub's engine, the pytest plugin, a local Cloud Tasks."""

from appengine_compat.testing.cloud_tasks import LocalCloudTasks, local_cloud_tasks

__all__ = ["LocalCloudTasks", "local_cloud_tasks"]
