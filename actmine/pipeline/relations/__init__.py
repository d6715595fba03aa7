"""Which units are alike, within a run and across two."""
