"""What each command does: its options in, its answer out."""
