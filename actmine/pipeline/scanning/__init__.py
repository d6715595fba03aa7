"""A pass over the dataset: block by block, each committed, and all of them merged."""
