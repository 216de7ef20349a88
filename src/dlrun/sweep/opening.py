"""Beginning a sweep, and going on with one: the command that it was started with, and what may and may not differ."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from dlrun.errors import UserError, printable
from dlrun.output.folders import new_folder, refuse_links, write_whole
from dlrun.overrides import CONFIG_FLAGS, key_of
from dlrun.sweep.axes import Axis, outside
from dlrun.sweep.outcomes import recover
from dlrun.sweep.settings import JOINABLE, RESUMABLE
from dlrun.sweep.state import Job, State, differences, find_sweep, load_state, locked, owner
from dlrun.sweep.workers import at_work

CHANGES = {"sweep.resume": RESUMABLE, "sweep.join": JOINABLE}


def reopen(key: str, which: str, output_dir: str, overrides: list[str]) -> tuple[str, list[str]]:
    """To resume or join (key) a sweep: its folder, or the study of a search's database, and its own command line.

    overrides: the command line here, with changes in how jobs are run. Changes to where the sweep was started.
    Raises UserError where there is no such sweep, or where an override is not one of the sweep's and no such change.
    """
    if is_url(which):
        from dlrun.sweep.study import published

        found, facts = published(which, key)
        facts["command"] = [*(o for o in facts["command"] if key_of(o) != "sweep.storage"), f"sweep.storage='{which}'"]
    else:
        found = str(find_sweep(which, output_dir, key).resolve())
        facts = load_state(Path(found)).facts
    _refuse_other_words(key, which, facts)
    may_change = [f"sweep.{name}" for name in CHANGES[key]] + ["output_dir"] * is_url(which)
    before = {key_of(override): override for override in facts["command"]}
    changes = {}
    for override in overrides:
        name = key_of(override)
        if name in may_change:
            changes[name] = override
        elif override != before.get(name) and name not in (key, "output_dir"):
            raise UserError(
                f"{key}={which}: {override!r} is not what the sweep was started with\n"
                f"  {repr(before[name]) if name in before else f'it had no {name}'}, in {found}\n"
                f"  expected dl-run -m {key}={which} where only {', '.join(may_change)} may change; "
                "anything else is a new sweep"
            )
    once = ("sweep.resume", "sweep.join", "sweep.retry")
    kept = [override for name, override in before.items() if name not in changes and name not in once]
    if not is_url(which):
        with suppress(OSError, ValueError):  # paths in its config are seen from there, where it is this machine's
            os.chdir(facts["cwd"])
    return found, [*kept, *changes.values(), *facts["flags"], "--multirun"]


def _refuse_other_words(key: str, which: str, facts: dict) -> None:
    """A folder or a database may be a stranger's: its command line has overrides, and flags for where configs are."""
    flags = [word for word in facts["flags"] if not word.startswith(tuple(f"--{name}=" for name in CONFIG_FLAGS))]
    for word in [*(word for word in facts["command"] if word.startswith("-")), *flags]:
        raise UserError(
            f"{key}={which}: {word!r} in the command that it was started with is none of dl-run's\n"
            "  expected the file or the database as dl-run wrote it"
        )


def is_url(which: str) -> bool:
    return "://" in which


@contextmanager
def begun(
    output_dir: Path, settings: object, command: dict[str, object], jobs: list[Job], files: dict
) -> Iterator[State]:
    """A new sweep in a folder of its own. A search that was joined by its database's URL has its study from there."""
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
                f"cannot begin a sweep in {folder}: {error.strerror}\n"
                "  expected a disk with room that can be written to; output_dir=... names another"
            ) from None
        yield state


def _goals(settings: object) -> list[list]:
    """As the sweep was told: the metrics, and which is better, None where the jobs are to say."""
    goal, direction = getattr(settings, "goal", None), getattr(settings, "direction", None)
    names = [goal] if isinstance(goal, str) else goal or []
    modes = [direction] * len(names) if not isinstance(direction, list) else direction
    return [list(pair) for pair in zip(names, modes, strict=True)]


@contextmanager
def reopened(folder: Path, settings: object, compare: Callable[[State, str], None]) -> Iterator[State]:
    """A sweep that was begun: resumed, which one process does at a time, or joined, beside those that are at work.

    What others left is brought to what it was worth. `compare` refuses a sweep that has changed.
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
            recover(state, retry=settings.retry == "failed")
        yield state


def compare(state: State, how: str, arguments: list[str], base: dict, axes: list[Axis]) -> None:
    """Raise UserError with the differences where the space or the configs are not what they were at the start.

    axes: of that space; each job is to be one of its points.
    """
    other = outside(axes, [job.overrides for job in state.jobs])
    if other is not None:
        raise UserError(
            f"{how}: job {other}, {printable(' '.join(state.jobs[other].overrides))}, is no point of its space\n"
            f"  expected {state.folder / 'sweep.json'} as dl-run wrote it"
        )
    try:
        base_before = json.loads((state.folder / "base.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{how}: cannot read base.json, the configs that it was started with: {error}\n"
            "  expected the file as dl-run wrote it"
        ) from None
    now = json.loads(json.dumps(base))  # as it would be read
    spaces = ({key_of(a): a for a in found} for found in (state.facts["arguments"], arguments))
    lines = differences(*spaces) + differences(base_before, now)
    if lines:
        more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise UserError(
            f"{how}: the sweep is not what it was when it was started\n  "
            + "\n  ".join(lines[:10] + more)
            + "\n  expected the same space and the same configs: put them back, or start a new sweep"
        )
