"""`dl-run`, and `python -m dlrun`."""

import sys

if __name__ == "__main__" and not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
    del sys.path[0]  # the working folder, where -m looks first


def main() -> None:
    """Ctrl-C while Python imports ends the process without a word: there is nothing to save, and nobody to blame."""
    import signal

    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dlrun import cli
    from dlrun.system.python import protect_children

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    protect_children()
    cli.main()


if __name__ == "__main__":
    main()
