"""Evaluate a finished run on its own data, or on other data encoded like the run's."""

import os
import shlex
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlrun.config.build import build
from dlrun.config.saved import own_config, require_finished
from dlrun.errors import UserError, counted
from dlrun.output.as_json import as_json as json_line
from dlrun.output.as_json import finite
from dlrun.output.console import table
from dlrun.overrides import key_of, quoted
from dlrun.spec import Env

if TYPE_CHECKING:
    from dlrun.data.base import Data
    from dlrun.train.finished import FinishedRun

SPLITS = ("val", "test", "all")
ONE_FILE = {  # data sets that are read from one file, data.file, or from what these keys name
    "TableFile": ("source", "train", "val", "test"),
    "SeriesFile": ("source",),
    "ArraySet": ("arrays", "x", "y"),
}
LEARNED = ("target", "learn", "positive", "drop", "types", "numbers", "categories")  # keys of what a run has learned
PATHS = ("data.file=", "data.x=", "data.root=", "data.label_file=", "data.source.folder=")


def read_overrides(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the split and the data overrides.

    The default split is `all` if a folder or file is named, `val` if only the file of val is, else `test`.
    Raises UserError for any other argument.
    """
    split, overrides = None, []
    for text in arguments:
        key, equals, value = text.partition("=")
        if key == "split" and value in SPLITS:
            split = value
        elif equals and (key in ("data", "data_dir") or key.startswith("data.")):
            overrides.append(text)
        else:
            raise UserError(
                f"{text}: expected split=val, split=test, split=all, data=NAME, data.KEY=VALUE or data_dir=FOLDER"
            )
    has_path = any(text.startswith(PATHS) for text in overrides)  # all of a named folder is to be scored
    has_val, has_test = (any(text.startswith(key) for text in overrides) for key in ("data.val=", "data.test="))
    return split or ("all" if has_path else "val" if has_val and not has_test else "test"), overrides


def other_place(folder: Path, path: str) -> list[str]:
    """Return the overrides that replace the data of a run by a file or folder of the same kind. Raises UserError."""
    if not os.path.exists(path):
        raise UserError(f"--on {path}: there is no such file or folder\n  expected samples with labels or targets")
    section, place = own_config(folder)[0]["data"], quoted(os.path.abspath(path))
    name = section["_target_"].rpartition(".")[2]
    if os.path.isfile(path):
        root = quoted(os.path.abspath(os.path.dirname(path)))
        images = [f"data.root={root}", f"data.label_file={place}", "data.label_pattern=null", "data.layout=csv"]
    else:
        listed = section.get("label_file") or ""
        is_there = os.path.isfile(os.path.join(path, listed)) and not os.path.isabs(listed)  # else of the run's images
        images = [f"data.root={place}", "data.layout=auto", *([] if is_there else ["data.label_file=null"])]
    if name in ONE_FILE:
        return [f"data.file={place}"]
    if name == "ImageFolder":
        return images
    if name == "Images":
        shape = ",".join(map(str, section["spec"]["shape"]))
        return ["data=image_folder", *images, f"data.spec.shape=[{shape}]"]
    if name in ("MaskFolder", "TextFolder"):
        return [f"data.root={place}"]
    if name == "Texts":
        return ["data=text_folder", f"data.root={place}", f"data.tokens={section['tokens']}"]
    raise UserError(f"--on {path}: the run learned from {name}, which is read from no file\n  expected data=NAME")


class Measured(NamedTuple):
    """The metrics of a finished run on a split, all with all their digits.

    size: the number of samples, 0 for environments. notes: for the user. recorded: the metrics of the run's own test,
    if they are of the same samples; None if there is nothing to compare.
    """

    run: "FinishedRun"
    metrics: dict[str, float]
    size: int
    notes: list[str]
    recorded: dict[str, float | None] | None
    baselines: dict[str, dict[str, float]] = {}  # never changed


def evaluate(
    folder: Path, split: str, overrides: list[str], device: str | None, as_json: bool
) -> tuple[list[str], bool]:
    """Return lines to print, and whether the metrics agree with the run's own, if those can be compared."""
    measured = measure(folder, split, overrides, device)
    run, metrics, recorded = measured.run, measured.metrics, measured.recorded
    verdict = None if recorded is None else _compared(metrics, recorded)
    is_reproduced = verdict is None or bool(verdict)
    if as_json:
        line = {"run": str(folder), "split": split, "data": overrides, "metrics": metrics}
        return [json_line(finite(line))], is_reproduced
    name = next((o.partition("=")[2] for o in overrides if o.startswith("data=")), run.names.get("data"))
    samples = f", {counted(measured.size, 'sample')}" if measured.size else ""
    lines = [
        f"{folder}: {run.names.get('model')}, weights: {run.weights}",
        f"{name}, {'all splits' if split == 'all' else f'{split} split'}{samples}",
        *measured.notes,
        "",
    ]
    rows = [["", *metrics], [split, *(repr(value) for value in metrics.values())]]
    if recorded is not None:
        rows.append(["summary.json", *(repr(recorded[name]) if name in recorded else "" for name in metrics)])
    for title, values in measured.baselines.items():
        rows.append([title, *(repr(values[name]) if name in values else "-" for name in metrics)])
    if recorded is None:
        return [*lines, table(rows)], True
    return [*lines, table(rows), "", verdict or "not reproduced: the data or the code has changed"], is_reproduced


def measure(folder: Path, split: str, overrides: list[str], device: str | None) -> Measured:
    """Compute a finished run's metrics on a split of its own data, or of other data, encoded like the run's."""
    from dlrun.runs.data_config import other_config

    require_finished(folder)
    section = own_config(folder, evaluates=True)[0]["data"]  # report its errors before torch is imported
    overrides = _of_one_file(section, overrides)
    _check_files(section, overrides)
    other = other_config(folder, overrides) if overrides else None
    if other is not None:
        _check_learned(section, other["data"], overrides)
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": device} if device else {})
        if split == "all" and isinstance(run.data.spec, Env):
            raise UserError("split=all: environments are played, there are no samples\n  expected split=val or test")
        data, notes = (run.load_data(), []) if other is None else _other(run, other["data"], split)
        metrics = run.task.evaluate(data, split)
    if (before := run.summary.get("precision", run.device.precision)) != run.device.precision:
        precision, used = run.device.precision, run.device.torch_device
        notes.append(f"evaluated in {precision} on {used}, but trained in {before}, which rounds differently")
    size = data.size(split)
    baselines = data.baselines(split) if hasattr(data, "baselines") else {}
    if other is not None and split != "all" and 0 < size < data.size("all"):
        notes.append(f"note: {size:,} of {data.size('all'):,} samples; split=all evaluates all of them")
    if split != "test" or other is not None:
        return Measured(run, metrics, size, notes, None, baselines)
    tested = run.summary["test"] if isinstance(run.summary.get("test"), dict) else {}
    recorded = {metric: tested[f"test/{metric}"] for metric in metrics if f"test/{metric}" in tested}
    return Measured(run, metrics, size, notes, recorded, baselines)


def _of_one_file(section: dict, overrides: list[str]) -> list[str]:
    """Return overrides with data.file= that also empty the other keys that name files of the run's data."""
    keys = [override.partition("=")[0] for override in overrides]
    if "data.file" not in keys or "data" in keys:
        return overrides
    others = ONE_FILE.get(section["_target_"].rpartition(".")[2], ())
    return [*overrides, *(f"data.{key}=null" for key in others if section.get(key) and f"data.{key}" not in keys)]


def _check_files(section: dict, overrides: list[str]) -> None:
    """Raise UserError for a file of a split that would not be read: the run has no such files."""
    keys = {override.partition("=")[0]: override for override in overrides if not override.endswith("=null")}
    named = next((keys[key] for key in ("data.val", "data.test") if key in keys), None)
    if not named or {"data", "data.train"} & set(keys) or section.get("train") or "train" not in section:
        return
    raise UserError(
        f"{named}: the run learned from one table, which has no file for each split\n"
        f"  expected --on {shlex.quote(named.partition('=')[2])}, which scores all of its rows"
    )


def _check_learned(section: dict, other: dict, overrides: list[str]) -> None:
    """Raise UserError for another target or another encoding of columns: other rows are read as the run's were."""
    if other["_target_"] != section["_target_"] or section["_target_"].rpartition(".")[2] == "ArraySet":
        return
    for override in overrides:
        parents, _, name = ".".join(key_of(override).split(".")[:2]).partition(".")
        if parents == "data" and name in LEARNED and name in section and other[name] != section[name]:
            raise UserError(
                f"{override}: the run has learned data.{name}={section[name]}, by which other rows are read, too\n"
                f"  expected no data.{name}: only a new run learns another"
            )


def _other(run: "FinishedRun", section: dict, split: str) -> tuple["Data", list[str]]:
    """Return other data encoded for the run's network, and notes for the user.

    All samples of a file or folder of the run's kind are read with the classes and statistics of the run. Raises
    UserError if its shape or number of outputs differs from the run's.
    """
    from dlrun.data.arrays.arrays import ArraySet
    from dlrun.data.base import has_samples
    from dlrun.data.raw import Reencoded
    from dlrun.data.table.encoded import Encoded
    from dlrun.spec import Tokens

    other, run_spec = build(section), run.data.spec
    reads_all = split == "all"  # or each split alike; other kinds of data are encoded anew below
    if isinstance(other, Encoded | ArraySet):
        other.keeps_splits, reads_all = not reads_all, True
    if reads_all and type(other) is type(run.data) and hasattr(other, "load_like"):
        other.load_like(run.data.fitted(), run.device.torch_device)
        new = getattr(other, "header_lines", {}).get("unseen")
        return other, [f"note: {new}"] if new else []
    if isinstance(run.data, Encoded) or isinstance(other, Encoded):
        raise UserError(
            f"the run learned from {run_spec}, and that data is of another kind: {other.spec}\n"
            "  expected a file like the run's: --on FILE, or data.file=FILE"
        )
    spec = other.spec
    same_kind = isinstance(spec, type(run_spec)) or isinstance(run_spec, type(spec))
    same_shape = spec.shape == run_spec.shape or isinstance(run_spec, Tokens)
    if not same_kind or not same_shape or spec.outputs != run_spec.outputs:
        raise UserError(
            f"the run takes {run_spec}, but that data gives {spec}\n  expected the same shape and number of outputs"
        )
    other.load(run.device.torch_device)
    if not has_samples(run.data):
        return other, []
    mine, theirs = getattr(run_spec, "labels", ()), getattr(spec, "labels", ())
    notes = []
    if mine and theirs and mine != theirs:
        notes.append(f"note: its classes are {', '.join(theirs[:3])}, ...; the run's are {', '.join(mine[:3])}, ...")
    return Reencoded(run.data, other), notes


def _compared(metrics: dict[str, float], recorded: dict[str, float | None]) -> str:
    """Describe how close the metrics are to the run's own; return "" if they differ.

    Metrics that the run did not measure are not compared.
    """
    if not recorded:
        return ""
    if all(metrics[name] == x or metrics[name] != metrics[name] and x is None for name, x in recorded.items()):
        return "reproduced exactly"
    if all(isinstance(x, int | float) and isclose(metrics[name], x, rel_tol=1e-3) for name, x in recorded.items()):
        return "reproduced closely: another device, number of threads or version of torch rounds differently"
    return ""
