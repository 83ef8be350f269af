"""The local Cloud Tasks: a service that any client could use, kept in one SQLite file."""
