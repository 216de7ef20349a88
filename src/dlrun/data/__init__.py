"""Data sets: found, read, kept on the device, given in batches."""
