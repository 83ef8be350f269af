"""What the tests of users' apps use: the stub's engine, the pytest plugin, a clock to step."""
