"""What travels: callables made into bytes and back."""
