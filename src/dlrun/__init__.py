"""dl-run: run deep-learning experiments from the command line, composed from YAML, with bit-exact resuming."""

__version__ = "0.1.0"
