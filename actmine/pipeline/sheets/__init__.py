"""Contact sheets: the pictures that show what units respond to, drawn from a finished run."""
