"""Commands on finished runs and on data sets: dl-runs, dl-data."""
