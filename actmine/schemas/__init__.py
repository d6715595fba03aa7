"""One file per Parquet table: its pyarrow schema, with a description and unit for every column."""
