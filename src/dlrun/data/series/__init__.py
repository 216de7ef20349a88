"""Series of numbers and categories at steps of time. A sample is a window, which is gathered when it is needed."""

import os

# Read when polars is imported: columns that are freed go back to the system at once. A table's go after 0.1 s, which
# spares the processor where there are many; the few of a series are encoded within that time.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1,dirty_decay_ms:0,muzzy_decay_ms:0")
