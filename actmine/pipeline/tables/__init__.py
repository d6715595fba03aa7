"""The rows of each table of a run, as its schema has them."""
