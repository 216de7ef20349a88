"""Entry point of `dl-run` and of `python -m dlrun`."""

import sys

if __name__ == "__main__" and not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
    del sys.path[0]  # -m puts the working folder first; it may be untrusted


def main() -> None:
    """Run the command line. Ctrl-C during imports ends the process silently, as there is nothing to save yet."""
    import signal

    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dlrun import cli
    from dlrun.system.python import protect_children

    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    protect_children()
    cli.main()


if __name__ == "__main__":
    main()
