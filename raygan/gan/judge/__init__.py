"""How a generator is judged: reconstruction, final test, variety, collapse, FID."""
