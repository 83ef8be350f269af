"""What arrives: who calls, whether they may be believed, and what the app then sees."""
