"""Start, resume or join a sweep: its original command, and the differences that are allowed."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from dlrun.errors import UserError, printable
from dlrun.output.folders import new_folder, refuse_links
from dlrun.output.written import write_whole
from dlrun.overrides import CONFIG_FLAGS, key_of
from dlrun.paths import read_whole
from dlrun.sweep.axes import Axis, outside
from dlrun.sweep.job import Job
from dlrun.sweep.outcomes import recover
from dlrun.sweep.settings import JOINABLE, RESUMABLE, Population, Settings
from dlrun.sweep.state import State, differences, find_sweep, load_state, locked, owner
from dlrun.sweep.workers import at_work

CHANGES = {"sweep.resume": RESUMABLE, "sweep.join": JOINABLE}


def reopen(key: str, which: str, output_dir: str, overrides: list[str]) -> tuple[str, list[str]]:
    """Return the folder of a sweep (or the name of a study in a database) and the command line to continue it.

    key: sweep.resume or sweep.join. overrides: those typed now, which may change how jobs are run. Changes the working
    folder to that in which the sweep was started. Raises UserError if there is no such sweep, or if an override is
    neither one of the sweep's nor an allowed change.
    """
    if is_url(which):
        from dlrun.sweep.study import published

        source, facts = published(which, key)
        facts["command"] = [*(o for o in facts["command"] if key_of(o) != "sweep.storage"), f"sweep.storage='{which}'"]
    else:
        source = str(find_sweep(which, output_dir, key).resolve())
        facts = load_state(Path(source)).facts
    _check_command(key, which, facts)
    may_change = [f"sweep.{name}" for name in CHANGES[key]] + ["output_dir"] * is_url(which)
    before = {key_of(override): override for override in facts["command"]}
    changes = {}
    for override in overrides:
        name = key_of(override)
        if name in may_change:
            changes[name] = override
        elif override != before.get(name) and name not in (key, "output_dir"):
            raise UserError(
                f"{key}={which}: the sweep was not started with {override!r}\n"
                f"  it had {repr(before[name]) if name in before else f'no {name}'}, in {source}\n"
                f"  expected dl-run -m {key}={which} with changes only to {', '.join(may_change)}; "
                "for any other change start a new sweep"
            )
    once = ("sweep.resume", "sweep.join", "sweep.retry")
    unchanged = [override for name, override in before.items() if name not in changes and name not in once]
    if not is_url(which):
        with suppress(OSError, ValueError):  # its relative paths start there, if it was started on this machine
            os.chdir(facts["cwd"])
    return source, [*unchanged, *changes.values(), *facts["flags"], "--multirun"]


def _check_command(key: str, which: str, facts: dict) -> None:
    """Raise UserError unless a stored command, which may be a stranger's, has only overrides and flags with paths."""
    flags = [word for word in facts["flags"] if not word.startswith(tuple(f"--{name}=" for name in CONFIG_FLAGS))]
    for word in [*(word for word in facts["command"] if word.startswith("-")), *flags]:
        raise UserError(
            f"{key}={which}: {word!r} in the sweep's command is not an argument of dl-run\n"
            "  expected the file or the database as dl-run wrote it"
        )


def is_url(which: str) -> bool:
    """Whether a sweep is named by a database's URL."""
    return "://" in which


@contextmanager
def new_sweep(
    output_dir: Path, settings: Settings, command: dict[str, object], jobs: list[Job], files: dict
) -> Iterator[State]:
    """Yield the state of a new sweep in a new folder. A search joined by URL takes its study from the database."""
    folder = new_folder(output_dir, "sweep")
    with locked(folder), at_work(folder) as worker:
        state = State.new(folder, command, jobs, getattr(settings, "trials", len(jobs)), _goals(settings))
        state.worker = worker
        try:
            write_whole(folder / "base.json", json.dumps(files["base"], indent=1) + "\n", durable=True)
            state.write()
            write_whole(folder / "multirun.yaml", files["multirun.yaml"])
        except OSError as error:
            raise UserError(
                f"cannot start a sweep in {folder}: {error.strerror}\n"
                "  expected a writable disk with room; output_dir=... names another"
            ) from None
        yield state


def _goals(settings: Settings) -> list[list]:
    """Return [metric, "max" or "min"] for each goal of the settings; None for a direction that the jobs will report."""
    goal, direction = getattr(settings, "goal", None), getattr(settings, "direction", None)
    names = [goal] if isinstance(goal, str) else goal or []
    modes = [direction] * len(names) if not isinstance(direction, list) else direction
    return [list(pair) for pair in zip(names, modes, strict=True)]


@contextmanager
def existing_sweep(folder: Path, settings: Settings, compare: Callable[[State, str], None]) -> Iterator[State]:
    """Yield the state of an existing sweep, resumed (by one process at a time) or joined (beside running processes).

    Jobs that dead processes left are recovered. `compare` raises UserError if the sweep has changed.
    """
    near = Path(os.path.relpath(folder))
    folder = near if ".." not in near.parts else folder
    refuse_links(folder)
    with nullcontext() if settings.join else locked(folder), at_work(folder) as worker:
        state = load_state(folder)
        compare(state, f"sweep.{'join' if settings.join else 'resume'}={folder}")
        state.worker = worker
        with state.alone():
            if not settings.join:
                state.facts["owner"] = owner()
            recover(state, settings.retry == "failed", alone=not isinstance(settings, Population))
        yield state


def compare(state: State, how: str, arguments: list[str], base: dict, axes: list[Axis]) -> None:
    """Raise UserError with the differences if the space or the configs have changed since the start.

    axes: those of the space; each job must be one of its points.
    """
    wrong = outside(axes, [job.overrides for job in state.jobs])
    if wrong is not None:
        raise UserError(
            f"{how}: job {wrong}, {printable(' '.join(state.jobs[wrong].overrides))}, is not a point of its space\n"
            f"  expected {state.folder / 'sweep.json'} as dl-run wrote it"
        )
    try:
        base_before = json.loads(read_whole(state.folder / "base.json"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{how}: cannot read base.json, the configs at its start: {error}\n  expected the file as dl-run wrote it"
        ) from None
    now = json.loads(json.dumps(base))  # as JSON would return it
    space_before, space = ({key_of(a): a for a in each} for each in (state.facts["arguments"], arguments))
    lines = differences(space_before, space) + differences(base_before, now)
    if lines:
        more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise UserError(
            f"{how}: the sweep has changed since it was started\n  "
            + "\n  ".join(lines[:10] + more)
            + "\n  expected the same space and configs: restore them, or start a new sweep"
        )
