"""Tables of typed columns: read, encoded and split. polars is imported here only, where a table is read."""
