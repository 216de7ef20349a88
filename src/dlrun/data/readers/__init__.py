"""Published file formats and made data, as NumPy arrays."""
