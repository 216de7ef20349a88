"""The output of a run: its folder, checkpoints, terminal lines and plots."""
