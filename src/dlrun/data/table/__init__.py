"""Tables of typed columns: read, encoded and split. polars is imported here only, where a table is read."""

import os

# read when polars is imported: freed columns go back to the system after 0.1 s, not a second, so that the peak is lower
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
