"""Subcommands of `dl-runs` and `dl-data`: parse their arguments, print the lines that they return, report errors."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import dlrun
from dlrun.config.own_failures import own_failures
from dlrun.errors import FULL, UserError, nearest, printable
from dlrun.output.terminal import complain, complain_of_disk, is_of_disk, open_streams, silence
from dlrun.paths import WORKING_FOLDER, has_working_folder
from dlrun.system.python import protect_children

WORDS = "--words"  # of `completion`: what follows is a line of the shell, in which argparse would read --


class Parser(argparse.ArgumentParser):
    """An argument parser that reads a minus and a digit as the start of a row of numbers, not of a flag."""

    def __init__(self, prog: str, description: str | None = None) -> None:
        super().__init__(prog, description=description)
        self._negative_number_matcher = re.compile(r"-[\d.][\d.,eE+-]*$")

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an argument. Of any number of words none is required; argparse says otherwise when another is missing."""
        action = super().add_argument(*names, **options)
        action.required = action.required and action.nargs != argparse.ZERO_OR_MORE
        return action

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n  {self.prog} --help shows the options")


Command = tuple[Callable[[Parser], None], Callable[[argparse.Namespace], Iterable[str]]]


def run_command(name: str, usage: str, commands: dict[str, Command]) -> None:
    """Run the subcommand that sys.argv names and print its output line by line."""
    protect_children()
    open_streams()
    arguments = sys.argv[1:]
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage)
        elif arguments[0] == "--version":
            print(f"{name} {dlrun.__version__}")
        elif arguments[0] not in commands:
            known = ", ".join(commands)
            raise UserError(
                f"{arguments[0]}: no such command{nearest(arguments[0], commands)}\n  expected one of: {known}"
            )
        else:
            describe, run = commands[arguments[0]]
            parser = Parser(f"{name} {arguments[0]}", description=run.__doc__)
            describe(parser)
            end = arguments.index(WORDS) + 1 if arguments[0] == "completion" and WORDS in arguments else None
            with own_failures():
                for line in run(parser.parse_intermixed_args(arguments[1:end])):
                    print(printable(line), flush=True)  # a command may take its time between two lines
        sys.stdout.flush()
    except UserError as error:
        complain(name, error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain(name, "stopped")
        sys.exit(130)
    except BrokenPipeError:  # for example dl-runs list | head
        silence(sys.stdout)
    except OSError as error:
        if not has_working_folder():
            complain(name, WORKING_FOLDER)
            sys.exit(2)
        if not is_of_disk(error):
            raise
        complain_of_disk(name, error)
        sys.exit(1 if error.errno in FULL else 2)
