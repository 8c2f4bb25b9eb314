"""What to try next, and what is known so far; no Ray."""
