"""Content of stored files: checksums, structure, Parquet tables, and the card of a checkpoint."""
