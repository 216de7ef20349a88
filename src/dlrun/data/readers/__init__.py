"""Readers of published file formats and generators of synthetic data, as NumPy arrays."""
