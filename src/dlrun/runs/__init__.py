"""The commands for finished runs and for data sets: dl-runs and dl-data."""
