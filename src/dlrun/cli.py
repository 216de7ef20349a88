"""The `dl-run` command: parse, check, run. It prints all user errors.

Hydra, which takes 0.15 s, is imported for configs only, and torch for valid ones.
"""

import os
import sys
import time
import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, NoReturn, cast

import dlrun
from dlrun.config.pairing import CONFIGS
from dlrun.config.project import output_dir, trust_command
from dlrun.config.usage import usage
from dlrun.errors import FULL, UserError, described, printable
from dlrun.output.json_line import FLAG, note_error, one_json_line
from dlrun.output.terminal import complain, complain_of_disk, is_of_disk, lost, open_streams, silence, text_of_disk
from dlrun.overrides import OTHER_KEYS, key_of, quoted
from dlrun.types import LARGEST_SEED

if TYPE_CHECKING:
    from argparse import Namespace

    from omegaconf import DictConfig

MOST_SEEDS = 10_000
FLAG_OF_STACK = "--stack="  # of the processes in which sweeps train several jobs (sweep/stacks.py)
STACK: list[str] = []  # its value


def schema(arguments: list[str]) -> str:
    """Print the JSON Schema of the configs."""
    from dlrun.config.editor import schema_command

    return schema_command(arguments)


def new(arguments: list[str]) -> str:
    """Write a package."""
    from dlrun.config.new_package import new_command

    return new_command(arguments)


def completion(arguments: list[str]) -> str:
    """Print the script that makes a shell complete the commands, or what the last word of a line may become."""
    from dlrun.config.completion import completion_command

    return completion_command(arguments, SUBCOMMANDS)


SUBCOMMANDS = {"schema": schema, "new": new, "trust": trust_command, "completion": completion}


def main() -> None:
    """Run `dl-run`. Exit codes: 0 done, 1 failed or output lost, 2 user error, 128 + N stopped by signal N, saved."""
    open_streams()
    STACK.extend(
        argument.removeprefix(FLAG_OF_STACK) for argument in sys.argv[1:] if argument.startswith(FLAG_OF_STACK)
    )
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.startswith(FLAG_OF_STACK)]
    is_json = FLAG in sys.argv[1:]
    while FLAG in sys.argv[1:]:
        sys.argv.remove(FLAG)
    with one_json_line() if is_json else nullcontext():
        run_command()


def run_command() -> None:
    """Run the command line in sys.argv."""
    try:
        if "--version" in sys.argv[1:]:
            print(f"dl-run {dlrun.__version__}")
        elif (name := "".join(sys.argv[1:2])) in SUBCOMMANDS:
            print(printable(SUBCOMMANDS[name](sys.argv[2:])))
        elif sys.argv[1:] in (["-h"], ["--help"]):
            print(usage())
        else:
            run_by_hydra()
    except UserError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        is_resumed = any(key_of(argument) == "resume" for argument in sys.argv[1:])
        hint = "the run is unchanged and can be resumed again" if is_resumed else "there is nothing to resume"
        fail(f"stopped before the first step: {hint}", 130)
    except BrokenPipeError:  # for example dl-run --help | head
        silence(sys.stdout)
    except OSError as error:
        if not is_of_disk(error):
            note_error(described(error))
            raise
        note_error(text_of_disk(error))
        complain_of_disk("dl-run", error)
        sys.exit(1 if error.errno in FULL else 2)
    except Exception as error:  # a bug, which ends in a traceback
        note_error(described(error))
        raise


def run_by_hydra() -> None:
    """Compose the config of sys.argv, and run the job, or all jobs of a sweep."""
    import hydra

    from dlrun.config.explain import explain
    from dlrun.config.hydra_internals import use_loader
    from dlrun.config.loader import Loader

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    use_loader(Loader)
    config_dir = None
    try:
        flags = parse_flags()
        config_dir = flags.config_dir
        if flags.help:
            print(usage(config_dir))
            return
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()
        sys.stdout.flush()
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        if is_of_disk(error) or is_ours(error):
            raise
        fail(explain(error, sys.argv[1:], config_dir))
    if lost:
        note_error(f"cannot write to {', '.join(name.strip('<>') for name in lost)}: the disk is full")
        sys.exit(1)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error and exit."""
    complain("dl-run", message)
    if int(os.environ.get("RANK", 0)):
        time.sleep(2)  # rank 0 must exit first if all processes fail: the launcher prints the first error
    note_error(message)
    sys.exit(code)


def is_ours(error: Exception) -> bool:
    """Whether dl-run's own code raised this, which is a bug. Anything else comes from Hydra reading user input."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return False
    return any(frame.f_code.co_name in ("job", "sweep") for frame, _ in traceback.walk_tb(error.__traceback__))


def parse_flags() -> "Namespace":
    """Parse the flags, which may stand between overrides, and reorder sys.argv to overrides, then flags, for Hydra."""
    from dlrun.config.flags import read_flags

    for argument in sys.argv[1:]:
        if not argument.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UserError(f"{argument}: these bytes are not valid text\n  expected UTF-8, in a UTF-8 locale")
    sys.argv[1:] = with_seeds(sys.argv[1:])
    flags = read_flags(sys.argv[1:])
    rest = sys.argv[1:]
    for override in flags.overrides:
        rest.remove(override)
    if any(key_of(override) == "resume" for override in flags.overrides):
        flags.overrides = [f"++{o}" if o.startswith(OTHER_KEYS) else o for o in flags.overrides]
    sys.argv[1:] = [*flags.overrides, *rest]
    again = next((o for o in flags.overrides if key_of(o) in ("sweep.resume", "sweep.join")), None)
    if again and flags.multirun:
        sys.argv[1:] = stored_command(again, flags.overrides)
        read_flags(sys.argv[1:])  # arguments stored in a folder or a database are checked like typed ones
    return flags


def with_seeds(arguments: list[str]) -> list[str]:
    """Replace seeds=N by a sweep over N consecutive seeds from `seed` (or 0) on, stacked if that is faster."""
    wanted = [argument for argument in arguments if key_of(argument) == "seeds" and "=" in argument]
    if not wanted:
        return arguments
    typed, single = wanted[-1], [argument for argument in arguments if key_of(argument) == "seed"]
    first = single[-1].partition("=")[2] if single else "0"
    if wanted[1:]:
        raise UserError(f"{' '.join(wanted)}: expected one number of seeds")
    count = typed.partition("=")[2]
    if not count.isdecimal() or not 2 <= int(count) <= MOST_SEEDS:
        raise UserError(f"{typed}: expected a number of seeds from 2 to {MOST_SEEDS:,}")
    if not first.isdecimal():
        raise UserError(f"{typed} with {single[-1]}: expected one first seed, such as seed=100, or only one of the two")
    if int(first) + int(count) - 1 > LARGEST_SEED:
        raise UserError(f"{typed} with {single[-1]}: expected seeds of at most {LARGEST_SEED:,}")
    rest = [argument for argument in arguments if argument not in (*wanted, *single)]
    if other := next((o for o in rest if key_of(o) in ("resume", "mode") or o in ("sweep=optuna", "sweep=pbt")), None):
        raise UserError(f"{typed} with {other}: expected seeds of new runs, without a mode, a search or a population")
    has_flag = any(argument in ("-m", "--multirun") for argument in rest)
    values = ",".join(str(int(first) + i) for i in range(int(count)))
    is_set = any(key_of(argument) == "sweep.stack" for argument in rest)
    more = [*([] if is_set else ["sweep.stack=auto"]), *([] if has_flag else ["--multirun"])]
    return [f"seed={values}", *rest, *more]


def stored_command(again: str, overrides: list[str]) -> list[str]:
    """Return the command line that resumes or joins a sweep: the stored one, with changes to how jobs are run."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from dlrun.sweep.opening import reopen

    parser = OverridesParser.create()
    which, *bases = (
        str(parser.parse_override(o).value()) for o in (again, *(o for o in overrides if key_of(o) == "output_dir"))
    )
    key = key_of(again)
    folder, command = reopen(key, which, bases[-1] if bases else output_dir(), overrides)
    return [f"{key}={quoted(folder)}", *command]


def job(composed: "DictConfig") -> float | None:
    """Train one run, new or resumed. Returns the best value of the goal metric, for sweepers."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from dlrun.system.launch import exit_code
    from dlrun.train.resume import resume
    from dlrun.train.start import Request, start

    request = Request(composed, cast("DictConfig", HydraConfig.get()), sys.argv[1:])
    try:
        if STACK:
            from dlrun.stack.run import run_stack

            run_stack(composed, STACK[0])
            return None
        done = start(request) if composed.get("resume") is None else resume(request)
        if done and done.signal:
            sys.exit(128 + done.signal)
        return done.value if done else None
    except UserError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # a job in the sweeper's own process
            raise
        fail(str(error), exit_code(error))
    except Exception as error:
        if (code := exit_code(error)) == 1:
            raise  # with its traceback
        traceback.print_exception(error)
        note_error(described(error))
        sys.exit(code)
