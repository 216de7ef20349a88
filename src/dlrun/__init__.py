"""dl-run: deep-learning experiments from the command line, composed from YAML and resumed to the bit."""

__version__ = "0.1.0"
