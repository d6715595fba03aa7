"""What DATASET means: images of folders, tars and addresses as a stream of samples and batches."""
