"""Tables of typed columns: read, encoded and split. polars is imported here only, where a table is read."""

import os

# polars reads it when it is imported: memory of columns that are encoded goes back at once, not after a second
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
