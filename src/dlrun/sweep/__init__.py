"""Sweeps and searches: what the jobs are, who runs them, what came of them."""
