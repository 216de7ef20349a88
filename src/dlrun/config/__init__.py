"""Configs: read and check them, explain their errors, build their objects, read them back from run folders."""
