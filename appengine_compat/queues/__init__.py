"""queue.yaml: read, checked, and turned into queues."""
