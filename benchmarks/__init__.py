"""One file per question; each prints ratios of medians from interleaved rounds."""
