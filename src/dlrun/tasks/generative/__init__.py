"""Autoencoders and adversarial networks, and measures of sample quality."""
