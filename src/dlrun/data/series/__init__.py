"""Series of numbers and categories at steps of time. A sample is a window, which is gathered when it is needed."""

import dlrun.data.table  # noqa: F401  # its options for polars' memory are read when polars is imported
