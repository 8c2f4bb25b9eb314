"""One run of a sweep from start to end."""
