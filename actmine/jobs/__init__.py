"""One thin file per command: parse, call pipeline, show progress."""
