"""K-fold cross-validation as a sweep: all folds unless one is chosen, and the predictions for all held-out samples."""

import csv
import io

from dlrun.config.zips import is_zip, pairs_of
from dlrun.errors import UserError
from dlrun.output.written import write_whole
from dlrun.overrides import key_of
from dlrun.paths import read_whole
from dlrun.sweep.job import Job
from dlrun.sweep.state import State, shared

FILE = "out_of_fold.csv"  # of a run with data.folds, and of a sweep of them
FOLD = "data.fold="


def with_folds(arguments: list[str], is_search: bool) -> list[str]:
    """Add data.fold=0,1,... to overrides with data.folds=K, unless they choose the fold.

    Raises UserError for a search, whose trials train once each, and for several numbers of folds.
    """
    keys = [key_of(argument) for argument in arguments if not is_zip(argument)]
    keys += [key.lstrip("+") for argument in arguments if is_zip(argument) for key, _ in pairs_of(argument)]
    folds = next((a.partition("=")[2].strip() for a in arguments if key_of(a) == "data.folds"), "")
    if "data.fold" not in keys and any(mark in folds for mark in ",("):
        raise UserError(
            f"data.folds={folds}: a sweep runs all folds of one number of folds\n"
            "  expected one number, or data.fold=0 too, to train on the first fold of each"
        )
    if "data.fold" in keys or not folds.isdecimal() or not 2 <= int(folds) <= 10_000:
        return arguments
    if is_search:
        raise UserError(
            f"data.folds={folds} in a search: each trial trains once, on one fold\n"
            "  expected data.fold=0 too, so that all trials are compared on that fold, or no data.folds"
        )
    return [*arguments, FOLD + ",".join(map(str, range(int(folds))))]


def write_out_of_fold(state: State) -> None:
    """Join the predictions of the finished jobs for the samples that their folds held out, with each job's setting."""
    rows: list[dict[str, str]] = []
    common = shared(state.jobs)
    for job in state.jobs:
        if job.status == "finished" and _fold(job):
            try:
                text = read_whole(state.run_folder(job) / FILE).decode("utf-8", "replace")
            except OSError:  # its task makes no predictions
                continue
            own = " ".join(o for o in job.overrides if o not in common and not o.startswith(FOLD))
            rows += [{"job": str(job.number), "setting": own, "fold": _fold(job), **row} for row in _rows(text)]
    if rows:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
        write_whole(state.folder / FILE, out.getvalue())


def _fold(job: Job) -> str:
    return next((override.removeprefix(FOLD) for override in job.overrides if override.startswith(FOLD)), "")


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))
