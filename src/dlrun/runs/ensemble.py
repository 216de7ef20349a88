"""The runs of a sweep as one: the mean of their predictions, evaluated and exported like those of a run.

Source: Lakshminarayanan et al. 2017, "Deep ensembles", section 2.4: probabilities are averaged, not logits.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.data.base import SampleData
from dlrun.errors import UserError, counted
from dlrun.output.as_json import as_json as json_line
from dlrun.output.console import number, table
from dlrun.output.failures import within_memory
from dlrun.output.folders import read_summary
from dlrun.runs.export import exported
from dlrun.runs.formats import GRAPHS, SUFFIXES, check_format
from dlrun.runs.model_files import FP32
from dlrun.train.data_state import is_same_data
from dlrun.train.finished import FinishedRun


class Ensemble(nn.Module):
    """Several networks as one: (B, ...) -> (B, outputs), such that its predictions are the means of theirs.

    classes: None for real targets. Two classes have one logit.
    """

    def __init__(self, nets: Sequence[nn.Module], classes: int | None) -> None:
        super().__init__()
        self.nets, self.classes = nn.ModuleList(nets), classes

    def forward(self, x: Tensor) -> Tensor:
        outs = torch.stack([net(x).float() for net in self.nets])
        if self.classes is None:
            return outs.mean(0)
        if self.classes == 2:  # the logit of the mean probability
            return F.logsigmoid(outs).logsumexp(0) - F.logsigmoid(-outs).logsumexp(0)
        return outs.log_softmax(-1).logsumexp(0) - torch.log(torch.tensor(float(len(self.nets))))


def finished(folders: Sequence[Path]) -> list[Path]:
    """Return those of the runs that have finished. Raises UserError if there are fewer than two."""
    finished_runs = [folder for folder in folders if read_summary(folder).get("status") == "finished"]
    if len(finished_runs) < 2:
        raise UserError(
            f"{counted(len(finished_runs), 'finished run')} of {len(folders)}: an ensemble is the mean of several\n"
            "  expected a sweep such as that of dl-run seeds=5, or the folders of two runs or more"
        )
    return finished_runs


def assembled(folders: Sequence[Path], changes: dict[str, object], split: str | None = None) -> FinishedRun:
    """The first run, with the networks of all. Raises UserError unless all learned the same from the same data.

    split: to be evaluated; must have the same samples in all runs, as the test split has for the folds of one data set.
    """
    runs = [FinishedRun(folder, changes) for folder in folders]
    first = runs[0]
    for run in runs:
        if not run.task.has_metrics:
            raise UserError(
                f"{run.folder}: task={run.names.get('task')} predicts nothing that could be averaged\n"
                "  expected runs of task=supervised"
            )
        same = ("data", "sums" if "sums" in first.state else "digest")  # a checkpoint's entries about the data
        if not is_same_data(run.state, {key: first.state[key] for key in same if key in first.state}):
            raise UserError(
                f"{run.folder} learned from other samples, classes or statistics than {first.folder}\n"
                "  expected runs on the same data: choose their folders instead of the sweep's"
            )
        is_divided_alike = is_same_data(run.state, {"digest": first.state["digest"]})
        if split and not is_divided_alike and content(run, split) != content(first, split):
            raise UserError(
                f"{run.folder}: its {split} split has other samples than that of {first.folder}\n"
                "  expected runs with a common one, such as the test split of folds"
            )
    classes = getattr(first.data.spec, "classes", None)
    first.task.update.ema = Ensemble([run.task.evaluated() for run in runs], classes).eval()
    first.weights = f"mean of {counted(len(runs), 'run')}"
    return first


def content(run: FinishedRun, split: str) -> str:
    """A hash of the samples of a split."""
    digest = hashlib.sha256()
    for batch in cast("SampleData", run.load_data()).batches(split):
        for tensor in batch:
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def export_ensemble(folders: Sequence[Path], out: Path) -> Iterator[str]:
    """Write the mean prediction of the runs as one graph, whose format is the ending of `out`; yield lines to print."""
    form = next((name for name in GRAPHS if SUFFIXES[name] == out.suffix), None)
    if form is None:
        raise UserError(
            f"--export {out}: expected a file that ends in {' or '.join(SUFFIXES[name] for name in GRAPHS)}"
        )
    check_format(form)
    chosen = finished(folders)
    with within_memory():
        run = assembled(chosen, FP32)
    yield from exported(run, form, out)


def ensemble(folders: Sequence[Path], split: str, device: str | None, is_json: bool) -> list[str]:
    """Return lines with the metrics of the runs' mean prediction, and of each run."""
    chosen = finished(folders)
    with within_memory():
        run = assembled(chosen, {"trainer.device": device} if device else {}, split)
        together = run.task.evaluate(run.load_data(), split)
    if is_json:
        return [json_line({"runs": [str(folder) for folder in chosen], "split": split, "metrics": together})]
    rows = [["", *together], [f"ensemble of {len(chosen)}", *map(number, together.values())]]
    if split == "test":
        tests = [cast("dict[str, float]", read_summary(folder).get("test") or {}) for folder in chosen]
        alone = {name: [test[f"test/{name}"] for test in tests if f"test/{name}" in test] for name in together}
        spread = [
            f"{number(mean(each))} +/- {number(stdev(each))}" if len(each) > 1 else "-" for each in alone.values()
        ]
        rows.append(["each alone", *spread])
    return [f"{counted(len(chosen), 'run')}, {run.names.get('data')}, {split} split", "", table(rows)]
