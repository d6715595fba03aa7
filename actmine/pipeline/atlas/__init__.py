"""The atlas: a run's tables as pages, served on this machine or written as plain files."""
