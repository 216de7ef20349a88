"""One run: from a checked config to trained weights, checkpoints and a summary. Start with engine.py."""
