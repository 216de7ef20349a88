"""Autoencoders and adversarial networks, and how samples are measured."""
