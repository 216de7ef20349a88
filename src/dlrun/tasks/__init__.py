"""Tasks: how to learn from one batch, and how to evaluate the result."""
