"""Samples in arrays, in memory or from .npz and .npy files."""
