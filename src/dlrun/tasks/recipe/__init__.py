"""Training techniques that any task may use, one in each module."""
