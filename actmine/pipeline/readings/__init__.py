"""Activations of a batch, read while the network runs, and the statistics that are kept of all batches."""
