"""`dl-run`, and `python -m dlrun`."""

import signal


def main() -> None:
    """Ctrl-C while Python imports ends the process without a word: there is nothing to save, and nobody to blame."""
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dlrun import cli

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
