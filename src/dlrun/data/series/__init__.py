"""Series of numbers and categories at steps of time. A sample is a window, which is gathered when it is needed."""
