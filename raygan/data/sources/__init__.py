"""The layouts in which people have images."""
