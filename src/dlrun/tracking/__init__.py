"""Experiment trackers, such as W&B: each follows a run's files in a process of its own."""
