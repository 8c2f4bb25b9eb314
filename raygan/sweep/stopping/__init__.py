"""Early stopping: the rules that a sweep may use, each in a file of its own."""
