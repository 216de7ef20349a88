"""Beginning a sweep, and going on with one: the command that it was started with, and what may and may not differ."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dlrun.errors import UserError
from dlrun.folders import new_folder, write_whole
from dlrun.sweep.runner import recover
from dlrun.sweep.settings import RESUMABLE
from dlrun.sweep.state import Job, State, differences, find_sweep, load_state, locked, owner
from dlrun.sweep.zips import key_of

CHANGES = tuple(f"sweep.{name}" for name in RESUMABLE)


def reopen(which: str, output_dir: str, overrides: list[str]) -> tuple[Path, list[str]]:
    """The sweep's folder and its own command line with the changes in `overrides`. Changes to where it was started.

    Raises UserError where there is no such sweep, or where an override is not one of the sweep's and no such change.
    """
    folder = find_sweep(which, output_dir).resolve()
    facts = load_state(folder).facts
    before = {key_of(override): override for override in facts["command"]}
    changes = {}
    for override in overrides:
        key = key_of(override)
        if key in CHANGES:
            changes[key] = override
        elif override != before.get(key) and key not in ("sweep.resume", "output_dir"):
            raise UserError(
                f"sweep.resume={which}: {override} is not what the sweep was started with\n"
                f"  {before[key] if key in before else f'it had no {key}'}, in {folder}\n"
                f"  expected dl-run -m sweep.resume={which}, where only {', '.join(CHANGES)} may change; "
                "anything else is a new sweep"
            )
    once = ("sweep.resume", "sweep.retry")
    kept = [override for key, override in before.items() if key not in changes and key not in once]
    if os.path.isdir(facts["cwd"]):  # paths in its config are seen from there
        os.chdir(facts["cwd"])
    return folder, [*kept, *changes.values(), *facts["flags"], "--multirun"]


@contextmanager
def begun(
    output_dir: Path, settings: object, command: dict[str, list[str]], jobs: list[Job], files: dict
) -> Iterator[State]:
    """A new sweep in a folder of its own, which nobody else works on meanwhile."""
    folder = new_folder(output_dir, "sweep")
    with locked(folder):
        state = State.new(folder, command, jobs, getattr(settings, "trials", len(jobs)), _goals(settings))
        state.save()
        write_whole(folder / "base.json", json.dumps(files["base"], indent=1) + "\n", durable=True)
        write_whole(folder / "multirun.yaml", files["multirun.yaml"])
        yield state


def _goals(settings: object) -> list[list]:
    """As the sweep was told: the metrics, and which is better, None where the jobs are to say."""
    goal, direction = getattr(settings, "goal", None), getattr(settings, "direction", None)
    names = [goal] if isinstance(goal, str) else goal or []
    modes = [direction] * len(names) if not isinstance(direction, list) else direction
    return [list(pair) for pair in zip(names, modes, strict=True)]


@contextmanager
def reopened(folder: Path, settings: object, compare: Callable[[State], None]) -> Iterator[State]:
    """A sweep that was begun, brought to what it was worth when it stopped. `compare` refuses one that has changed."""
    near = Path(os.path.relpath(folder))
    folder = near if ".." not in near.parts else folder
    with locked(folder):
        state = load_state(folder)
        compare(state)
        before, state.facts["owner"] = state.facts["owner"], owner()
        state.facts["total"] = getattr(settings, "trials", state.facts["total"])
        recover(state, before.get("host"), retry=settings.retry == "failed")
        yield state


def compare(state: State, arguments: list[str], base: dict) -> None:
    """Raise UserError with the differences where the space or the configs are not what they were at the start."""
    try:
        base_before = json.loads((state.folder / "base.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"sweep.resume={state.folder}: cannot read base.json, the configs that it was started with: {error}\n"
            "  expected the file as dl-run wrote it"
        ) from None
    now = json.loads(json.dumps(base))  # as it would be read
    spaces = ({key_of(a): a for a in found} for found in (state.facts["arguments"], arguments))
    lines = differences(*spaces) + differences(base_before, now)
    if lines:
        more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise UserError(
            f"sweep.resume={state.folder}: the sweep is not what it was when it was started\n  "
            + "\n  ".join(lines[:10] + more)
            + "\n  expected the same space and the same configs: put them back, or start a new sweep"
        )
