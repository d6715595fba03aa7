"""Files, tables and checked state, whole or not at all, in a folder or on S3."""
