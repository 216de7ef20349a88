"""What the last word of a dl-runs or dl-data command line may become. No torch here."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dlrun.config.completion import flag_value, keys, runs_in, sweeps_in, values
from dlrun.config.shells import SCRIPTS, replies, split
from dlrun.errors import UserError
from dlrun.runs.command import WORDS, Command, Parser
from dlrun.runs.formats import FORMATS
from dlrun.runs.listing import COLUMNS, FACTS, facts

SPLITS = ("val", "test", "all")


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `completion`."""
    parser.add_argument("shell", choices=tuple(SCRIPTS))
    parser.add_argument(WORDS, action="store_true", help=argparse.SUPPRESS)


def completed(args: argparse.Namespace, commands: Mapping[str, Command]) -> Iterable[str]:
    """Return the script of a shell, or with --words what the last word of that line may become."""
    if not args.words:
        return [SCRIPTS[args.shell]]
    words = sys.argv[sys.argv.index(WORDS) + 1 :]
    return replies(args.shell, words, complete(split(args.shell, words), commands))


def complete(words: Sequence[str], commands: Mapping[str, Command]) -> list[str]:
    """List candidates for the last word of a line, among them all that begin as it does."""
    if len(words) <= 1 or words[0] not in commands:
        return [] if len(words) > 1 else [*commands, "--help", "--version"]
    parser = Parser(words[0])
    commands[words[0]][0](parser)
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    flags = {flag: action for action in actions for flag in action.option_strings}
    before, word, waiting = [], words[-1], None
    for each in words[1:-1]:
        if waiting is None and each in flags:
            waiting = flags[each] if flags[each].nargs != 0 else None
        else:
            before += [each] if waiting is None and not each.startswith("-") else []
            waiting = None
    flag, equals, _ = word.partition("=")
    if waiting is not None:
        return _values(waiting, words, before)
    if equals and flag in flags:
        return [f"{flag}={value}" for value in _values(flags[flag], words, before)]
    if word.startswith("-"):
        return list(flags)
    places = [action for action in actions if not action.option_strings]
    place = places[min(len(before), len(places) - 1)] if places else None
    is_full = place is None or len(before) >= len(places) and place.nargs not in ("*", "+")
    return [] if is_full or place is None else _values(place, words, before)


def _values(action: argparse.Action, words: Sequence[str], before: Sequence[str]) -> list[str]:
    """List the values of an argument. before: the positional ones typed so far."""
    if action.choices is not None:
        return list(action.choices)
    listings = {
        "run": lambda: _runs(words, action),
        "runs": lambda: _runs(words, action),
        "format": lambda: list(FORMATS),
        "sort": lambda: ["started", *COLUMNS, *FACTS, *_metrics(words)],
        "metric": lambda: _metrics(words),
        "filters": lambda: _filters(words),
        "name": _data_sets,
        "overrides": lambda: _overrides(words, before),
    }
    listed: Callable[[], list[str]] = listings.get(action.dest, list)
    return listed()


def _runs(words: Sequence[str], action: argparse.Action) -> list[str]:
    """List runs, and sweeps if the argument may be one."""
    base = _base(words)
    takes_sweeps = "SWEEP" in str(action.metavar) or "sweeps" in str(action.help)
    return [*runs_in(base), *(sweeps_in(base) if takes_sweeps else [])]


def _base(words: Sequence[str]) -> str:
    """Return the folder of the runs: that of --output-dir, else the default."""
    from dlrun.config.project import output_dir

    return flag_value(words, "--output-dir") or output_dir()


def _rows(words: Sequence[str]) -> list[dict]:
    from dlrun.output.folders import all_runs

    return [facts(folder) for folder in all_runs(Path(_base(words)))]


def _metrics(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for row in _rows(words) for name in row["metrics"]))


def _filters(words: Sequence[str]) -> list[str]:
    """List the keys of filters, or, after KEY=, the values that the runs have."""
    key, equals, value = words[-1].partition("=")
    if not equals:
        return [f"{name}=" for name in ("run", *FACTS)]
    head = key + equals + value[: value.rfind(",") + 1]
    return [head + str(row[key]) for row in _rows(words) if row.get(key) is not None]


def _data_sets() -> list[str]:
    from dlrun.config.usage import options

    return options("data")


def _overrides(words: Sequence[str], before: Sequence[str]) -> list[str]:
    """List overrides of the data: of the run that was named first, or of that data set."""
    command, word = words[0], words[-1]
    is_run, (key, equals, _) = command == "evaluate", word.partition("=")
    config = _config(words, before, is_run)
    if not equals:
        names = [name for name in keys(word, config) if name.startswith(("data.", "data_dir="))]
        return [*names, *(["split=", "data=", "data."] if is_run else ["data."])]
    named = {"split": list(SPLITS), "data": _data_sets()} if is_run else {}
    return [f"{key}={value}" for value in named.get(key) or values(key, config)]


def _config(words: Sequence[str], before: Sequence[str], is_run: bool) -> Mapping:
    """Compose the config whose data the line changes. before: the run or the data set, then overrides."""
    from dlrun.config.saved import container, read_config
    from dlrun.output.folders import find_run
    from dlrun.runs.data_config import compose_data

    other = [word.removeprefix("data=") for word in before if word.startswith("data=")]
    try:
        if is_run and not other:
            return container(read_config(find_run(before[0], _base(words), ""))[0], resolve=False)
        return container(compose_data(other[-1] if other else before[0], []), resolve=False)
    except UserError:
        return {}
