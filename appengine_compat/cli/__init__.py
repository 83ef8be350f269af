"""The command line: ``appengine-compat …``."""
