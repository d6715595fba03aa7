"""The embedded demo: a rendered dataset with known concepts and the small network trained on it."""
