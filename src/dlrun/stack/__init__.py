"""Many runs of one shape trained as one stacked network."""
