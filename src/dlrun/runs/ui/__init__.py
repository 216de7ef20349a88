"""The local web page over a folder of runs: `dl-runs ui`."""
