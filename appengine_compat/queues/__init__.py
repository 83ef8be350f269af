"""queue.yaml: reading it, and what becomes of it."""
