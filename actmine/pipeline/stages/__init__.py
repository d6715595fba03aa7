"""What commands do with a run, step by step; each stage can be interrupted and gone on with."""
