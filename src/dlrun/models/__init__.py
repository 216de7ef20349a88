"""Networks, built from what the data is."""
