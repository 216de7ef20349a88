"""Sweeps and searches: their jobs, how the jobs are run, and their results."""
