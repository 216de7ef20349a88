"""One run: from a checked config to trained weights, a checkpoint and a summary."""
