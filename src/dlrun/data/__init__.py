"""Data sets: find, read, store on the device, and deliver batches."""
