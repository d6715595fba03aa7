"""The library: pure building blocks of a mining run; no argument parsing, never imports jobs."""
