"""Tables of typed columns: read, encoded and split. polars is imported here only, where a table is read."""

import os

# Read when polars is imported, to lower the peak: freed columns go back to the system after 0.1 s, not a second,
# and all threads share one arena, since only a thread that still allocates returns what its arena has freed.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0")
