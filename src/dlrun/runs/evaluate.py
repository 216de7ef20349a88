"""A finished run's metrics: on its own data, or on other data that is prepared as the run's own was."""

from math import isclose
from pathlib import Path

from dlrun.config.build import build
from dlrun.config.saved import require_finished
from dlrun.errors import UserError, counted
from dlrun.output.as_json import as_json as json_line
from dlrun.output.console import table
from dlrun.spec import Env

SPLITS = ("val", "test", "all")
PLACES = ("data.root=", "data.csv=", "data.source.path=", "data.source.folder=")


def read_overrides(given: list[str]) -> tuple[str, list[str]]:
    """The split, and what is asked of the data: all of a folder or file that is named, else the test part.

    Raises UserError for anything else.
    """
    split, overrides = None, []
    for text in given:
        key, equals, value = text.partition("=")
        if key == "split" and value in SPLITS:
            split = value
        elif equals and (key in ("data", "data_dir") or key.startswith("data.")):
            overrides.append(text)
        else:
            raise UserError(
                f"{text}: expected split=val, split=test, split=all, data=NAME, data.KEY=VALUE or data_dir=FOLDER"
            )
    is_place = any(text.startswith(PLACES) for text in overrides)  # a folder is given to be scored, not a part of it
    return split or ("all" if is_place else "test"), overrides


def evaluate(
    folder: Path, split: str, overrides: list[str], device: str | None, as_json: bool
) -> tuple[list[str], bool]:
    """Lines to print: the metrics with all their digits, beside the run's own where they are of the same samples.

    And whether they are near those; true where there is nothing to compare.
    """
    from dlrun.config.saved import own_config
    from dlrun.runs.data_config import other_config

    require_finished(folder)
    own_config(folder)  # what is wrong with it is told before torch is imported
    other = other_config(folder, overrides) if overrides else None
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": device} if device else {})
        if split == "all" and isinstance(run.data.spec, Env):
            raise UserError("split=all: environments are played, there are no samples\n  expected split=val or test")
        data, notes = (run.load_data(), []) if other is None else _other(run, other["data"])
        found = run.task.evaluate(data, split)
    if (before := run.summary.get("precision", run.place.precision)) != run.place.precision:
        notes.append(f"in {run.place.precision} on {run.place.device}, the run was in {before}: it rounds otherwise")
    if other is not None and split != "all" and 0 < (size := data.size(split)) < data.size("all"):
        notes.append(f"note: {size:,} of the {data.size('all'):,} samples that are there; split=all scores all of them")
    said, own = None, {}
    if split == "test" and other is None:
        tested = run.summary["test"] if isinstance(run.summary.get("test"), dict) else {}
        own = {metric: tested[f"test/{metric}"] for metric in found if f"test/{metric}" in tested}
        said = _compared(found, own)
    if as_json:
        line = {"run": str(folder), "split": split, "data": overrides, "metrics": found}
        return [json_line(line)], said is None or bool(said)
    name = next((o.partition("=")[2] for o in overrides if o.startswith("data=")), run.names.get("data"))
    samples = f", {counted(size, 'sample')}" if (size := data.size(split)) else ""
    lines = [
        f"{folder}: {run.names.get('model')}, weights: {run.weights}",
        f"{name}, {'all parts' if split == 'all' else f'{split} part'}{samples}",
        *notes,
        "",
    ]
    rows = [["", *found], [split, *(repr(value) for value in found.values())]]
    if said is None:
        return [*lines, table(rows)], True
    rows.append(["summary.json", *(repr(own[name]) if name in own else "" for name in found)])
    return [*lines, table(rows), "", said or "NOT the run's own: the data or the code is not what it was"], bool(said)


def _other(run: object, section: dict) -> tuple[object, list[str]]:
    """Other data as the run's network takes it, and what the user should know of it."""
    from dlrun.data.raw import Through
    from dlrun.spec import Tokens

    other, own = build(section), run.data.spec
    spec, kind = other.spec, type(own)
    same_shape = spec.shape == own.shape or isinstance(own, Tokens)
    if not isinstance(spec, kind) and not isinstance(own, type(spec)) or not same_shape or spec.outputs != own.outputs:
        raise UserError(f"the run takes {own}, that data gives {spec}\n  expected the same shape, and as many outputs")
    other.load(run.place.device)
    if isinstance(own, Env):
        return other, []
    mine, theirs = getattr(own, "labels", ()), getattr(spec, "labels", ())
    notes = []
    if mine and theirs and mine != theirs:
        notes.append(f"note: the classes are named {', '.join(theirs[:3])}, ...; the run's {', '.join(mine[:3])}, ...")
    return Through(run.data, other), notes


def _compared(found: dict[str, float], own: dict[str, float | None]) -> str:
    """How near they are; nothing where they are not. What the run did not measure yet is not compared."""
    if not own:
        return ""
    if all(found[name] == own[name] or found[name] != found[name] and own[name] is None for name in own):
        return "the run's own, to the last digit"
    if all(isinstance(own[name], int | float) and isclose(found[name], own[name], rel_tol=1e-3) for name in own):
        return "near the run's own: another device, number of threads or version of torch rounds otherwise"
    return ""
