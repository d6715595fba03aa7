"""What units make of a batch, read while the network runs, and what is kept of all batches."""
