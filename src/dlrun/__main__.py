"""`python -m dlrun` is `dl-run`."""

from dlrun.cli import main

main()
