"""The third command, dl-data: which data sets there are, whether they are here, and whether they are whole."""

import argparse
from collections.abc import Iterable
from itertools import takewhile
from textwrap import shorten

from dlrun.errors import UserError
from dlrun.runs.cli import Command, Parser, run_command

USAGE = """dl-data: the data sets that dl-run learns from

  dl-data list                     names, and what they are
  dl-data fetch NAME [KEY=VALUE]   download what is not here, read it, and tell
                                   its parts
  dl-data check NAME [KEY=VALUE]   the same without any download: is it here,
                                   whole, and what its config says?

KEY is data_dir, or a key of the data as in data.source.path=reviews.
dl-run data=NAME --cfg job -p data shows them."""


def main() -> None:
    """Exit codes: 0 done, 2 the user's error or data that is not right, 130 stopped."""
    run_command("dl-data", USAGE, COMMANDS)


def _list(args: argparse.Namespace) -> Iterable[str]:
    """The data sets, each with the first line of its config."""
    from dlrun.config.pairing import CONFIGS

    found = {}
    for path in sorted((CONFIGS / "data").glob("*.yaml")):
        comment = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        said = " ".join(
            line.removeprefix("#").strip() for line in takewhile(lambda line: "dl-run" not in line, comment)
        )
        found[path.stem] = shorten(said.partition(": ")[2] or said, 100, placeholder=" ...")
    width = max(map(len, found))
    return [f"{name:{width}}  {line}" for name, line in found.items()]


def _name_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="as dl-data list has it")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="data_dir=FOLDER, data.KEY=VALUE")


def _fetch(args: argparse.Namespace) -> Iterable[str]:
    """Download what is not here, read it, and tell its parts."""
    return _load(args, downloads=True)


def _check(args: argparse.Namespace) -> Iterable[str]:
    """Read all of it, without any download, and check it against its config."""
    return _load(args, downloads=False)


def _load(args: argparse.Namespace, downloads: bool) -> Iterable[str]:
    from dlrun.runs.data_config import data_config

    for text in args.overrides:
        if "=" not in text or not text.startswith(("data_dir=", "data.")):
            raise UserError(f"{text}: expected data_dir=FOLDER or data.KEY=VALUE")
    config = data_config(args.name, args.overrides)
    source = config.get("source")
    if isinstance(source, dict) and "download" in source:
        source["download"] = downloads
    from dlrun.runs.data_parts import describe

    return describe(args.name, config)


COMMANDS: dict[str, Command] = {
    "list": (lambda parser: None, _list),
    "fetch": (_name_arguments, _fetch),
    "check": (_name_arguments, _check),
}

if __name__ == "__main__":
    main()
