"""Where tasks go: the ``Backend`` protocol, the choice of one, and the backends."""
