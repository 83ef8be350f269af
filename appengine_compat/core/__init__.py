"""The rules of Cloud Tasks as values and pure functions: no I/O, and time is always an argument."""
