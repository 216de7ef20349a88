"""What a command line asks for: read, checked, explained, and read back from a run's folder."""
