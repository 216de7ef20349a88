"""Batches from loaders of your own."""
