"""What travels: calls as pickles that both sides can read."""
