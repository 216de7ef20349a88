"""What is done with runs that are there: dl-runs, dl-data."""
