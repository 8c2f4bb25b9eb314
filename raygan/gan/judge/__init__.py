"""Tests of a generator: reconstruction, final test, variety, collapse, FID."""
