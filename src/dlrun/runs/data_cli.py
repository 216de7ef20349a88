"""The `dl-data` command, which lists, downloads and checks data sets."""

import argparse
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from textwrap import shorten

from dlrun.errors import UserError
from dlrun.runs.command import Command, Parser, run_command
from dlrun.runs.completion import completed, completion_arguments

USAGE = """dl-data: the data sets that dl-run learns from

  dl-data list                     names and descriptions; --json
  dl-data fetch NAME [KEY=VALUE]   download missing files, read the data and
                                   print its splits
  dl-data check NAME [KEY=VALUE]   the same without downloads: is the data
                                   here, intact, and as its config states?
  dl-data draw NAME [KEY=VALUE]    a table's columns against each other, or
                                   images with their labels, as NAME.png

KEY is data_dir, or a key of the data such as data.root=reviews.
dl-run data=NAME --cfg job -p data shows them."""


def main() -> None:
    """Run `dl-data`. Exit codes: 0 done, 2 user error or wrong data, 130 interrupted."""
    run_command("dl-data", USAGE, COMMANDS)


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def _list(args: argparse.Namespace) -> Iterable[str]:
    """List the data sets, each with the first sentence of its config's header."""
    from dlrun.config.pairing import CONFIGS
    from dlrun.output.as_json import as_json

    descriptions = {}
    for path in sorted((CONFIGS / "data").glob("*.yaml")):
        comment = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        text = " ".join(
            line.removeprefix("#").strip() for line in takewhile(lambda line: "dl-run" not in line, comment)
        )
        descriptions[path.stem] = shorten(text.partition(": ")[2] or text, 100, placeholder=" ...")
    if args.json:
        return [as_json({"data": [{"name": name, "description": line} for name, line in descriptions.items()]})]
    width = max(map(len, descriptions))
    return [f"{name:{width}}  {line}" for name, line in descriptions.items()]


def _name_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="a name that dl-data list prints")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="data_dir=FOLDER, data.KEY=VALUE")


def _fetch(args: argparse.Namespace) -> Iterable[str]:
    """Download missing files, read the data and print its splits."""
    return _load(args, downloads=True)


def _check(args: argparse.Namespace) -> Iterable[str]:
    """Read all data, without downloads, and check it against its config."""
    return _load(args, downloads=False)


def _load(args: argparse.Namespace, downloads: bool) -> Iterable[str]:
    config = _config(args, downloads)  # refuses mistakes before torch is imported
    from dlrun.runs.data_splits import describe

    return describe(args.name, config)


def _config(args: argparse.Namespace, downloads: bool) -> dict:
    from dlrun.runs.data_config import data_config

    for text in args.overrides:
        if "=" not in text or not text.startswith(("data_dir=", "data.")):
            raise UserError(f"{text}: expected data_dir=FOLDER or data.KEY=VALUE")
    config = data_config(args.name, args.overrides)
    source = config.get("source")
    if isinstance(source, dict) and "download" in source:
        source["download"] = downloads
    return config


def _draw_arguments(parser: Parser) -> None:
    _name_arguments(parser)
    parser.add_argument(
        "--columns", default="", metavar="A,B,...", help="of a table; default: the target, the first four"
    )
    parser.add_argument("--out", metavar="FILE.png", help="default: NAME.png in this folder")


def _draw(args: argparse.Namespace) -> Iterable[str]:
    """Draw a table's columns against each other, or the first training images with their labels."""
    out = Path(args.out or f"{args.name}.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {args.out}: expected a name that ends in .png")
    config = _config(args, True)
    from dlrun.runs.draw_data import draw

    return draw(args.name, config, [name for name in args.columns.split(",") if name], out)


def _completion(args: argparse.Namespace) -> Iterable[str]:
    """Print the script that makes a shell complete dl-run, dl-runs and dl-data."""
    return completed(args, COMMANDS)


COMMANDS: dict[str, Command] = {
    "list": (_list_arguments, _list),
    "fetch": (_name_arguments, _fetch),
    "check": (_name_arguments, _check),
    "draw": (_draw_arguments, _draw),
    "completion": (completion_arguments, _completion),
}

if __name__ == "__main__":
    main()
