"""Texts about a run: facts for its summary, the lines before training, the table at its end."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch

import dlrun
from dlrun.clock import Clock
from dlrun.config.auto import words
from dlrun.data.base import Data, has_samples
from dlrun.errors import counted
from dlrun.models.options import options_of
from dlrun.output import console
from dlrun.output.console import number, table
from dlrun.spec import Spec
from dlrun.system.convolutions import describe_products
from dlrun.system.machine import device_name
from dlrun.train.state import Training

if TYPE_CHECKING:
    from dlrun.train.session import Session

SHOWN = 20  # most classes in the table at the end
GROUPS = ("data", "model", "task", "optimizer", "schedule", "experiment")


def facts(session: "Session") -> dict[str, object]:
    """The entries of summary.json that are known before training."""
    device, task, best = session.device, session.task, session.best
    versions = {"dlrun": dlrun.__version__, "torch": torch.__version__, "numpy": numpy.__version__}
    return {
        **{name: session.names.get(name) for name in GROUPS},
        "seed": session.config["seed"],
        "goal": f"val/{best.metric}" if best else None,
        "scores": {f"val/{name}": mode for name, mode in task.scores.items()},
        "device": device_name(device.torch_device),
        "precision": device.precision,
        "processes": device.dist.size,
        "start": session.loaded or None,
        "classes": named_classes(session.data.spec) or None,
        "parameters": sum(p.numel() for p in task.net.parameters()),
        "versions": {**versions, "python": sys.version.split()[0]},
        "git": session.commit,
    }


def header(session: "Session", folder: Path, clock: Clock, width: int = 10_000) -> str:
    """The lines printed before training: data, model, device, folder, start and chosen values."""
    data, device, task, net = session.data, session.device, session.task, session.task.net
    frames = clock.epoch_samples  # environments have no splits: val and test play episodes
    sizes, note = (f"{counted(frames, 'frame')} an epoch", "") if frames else (sizes_of(data), one_batch(session))
    parameters = sum(p.numel() for p in net.parameters())
    frozen = sum(p.numel() for p in net.parameters() if not p.requires_grad)
    details = f"{f', {frozen:,} of them frozen' if frozen else ''}{options_of(net).description}"
    lines: dict[str, str] = getattr(data, "header_lines", {})  # further lines; "learns" names the classes
    names = [] if "learns" in lines else named_classes(data.spec)
    number = 0 if "learns" in lines else getattr(data.spec, "classes", None) or 0
    classes = f"; classes: {', '.join(names)}" if names else f"; {counted(number, 'class')}" if number else ""
    count = torch.get_num_threads()
    threads = f" ({counted(count, 'thread')})" if device.torch_device.type == "cpu" else ""
    processes = f"{device.dist.size} x " if device.dist.size > 1 else ""
    return console.header(
        dlrun.__version__,
        {
            "data": f"{session.names.get('data')}: {sizes}; {data.describe()}{classes}{note}",
            **lines,
            **task.header_lines,
            "model": f"{session.names.get('model')}: {counted(parameters, 'parameter')}{details}",
            "device": f"{processes}{device_name(device.torch_device)}{threads}, {device.precision}: {device.why}"
            f"{describe_products(net)}",
            "folder": f"{folder}",
        }
        | ({"start": session.loaded} if session.loaded else {})
        | ({"chosen": f"by the data: {words(session.config, session.chosen)}"} if session.chosen else {}),
        width,
    )


def sizes_of(data: Data) -> str:
    """ "800 train, 200 val, 100 test"; "800 train, 200 val (no test: val is tested)" """
    if not data.size("test"):
        return f"{counted(data.size('train'), 'step')} an epoch"
    tested = getattr(data, "tested", "test")
    sizes = ", ".join(f"{data.size(split):,} {split}" for split in dict.fromkeys(("train", "val", tested)))
    return sizes if tested == "test" else f"{sizes} (no test: {tested} is tested)"


def one_batch(session: "Session") -> str:
    """A note if the user's batch size is larger than the train split; else ""."""
    data = session.data
    if not has_samples(data) or "data.batch_size" in session.chosen:
        return ""
    size, limit = data.batch_size, data.size("train")
    return f"; an epoch is one batch: data.batch_size={size:,} is more than {limit:,}" if size > limit else ""


def baseline_rows(baselines: dict[str, dict[str, float]], metrics: Iterable[str]) -> list[list[str]]:
    """Rows of a table with the metrics of forecasts without learning, by name."""
    return [
        [name, *(number(values[metric]) if metric in values else "-" for metric in metrics)]
        for name, values in baselines.items()
    ]


def named_classes(spec: Spec) -> list[str]:
    """The names of the first ten classes, then "..." if there are more; empty if they are just 0, 1, 2 and so on."""
    labels = list(getattr(spec, "labels", ()))
    if labels == [str(i) for i in range(len(labels))]:
        return []
    return labels[:10] + ["..."] * (len(labels) > 10)


def final_table(
    training: Training,
    test: dict[str, float],
    baselines: dict[str, dict[str, float]],
    per_class: object,
    reason: str,
    tested: str = "test",
    width: int = 10_000,
) -> str:
    """The table printed at the end: val metrics of the best epoch above those of the test split; below each other if
    the terminal is too narrow. Then the test figures of each class, if per_class has them, and the report's table.

    baselines: metrics of the test split without learning, by name. tested: the split of these, val if there is no test.
    """
    best, run, clock = training.best, training.run, training.clock
    why = "all epochs done" if reason == "finished" else f"trainer.{reason} reached"
    epoch = best.epoch if best and best.score is not None else None
    row: dict[str, float] = next((row for row in run.rows if row["epoch"] == epoch), {})
    head = ["", *test]
    val = [
        f"val (epoch {epoch})" if row else "val",
        *(number(row[f"val/{n}"]) if row.get(f"val/{n}") is not None else "-" for n in test),
    ]
    is_last = training.trainer.test == "last" or best and best.score is None  # no best epoch, or its weights are lost
    label = tested if tested == "test" else f"{tested} as test"
    label += f" (epoch {clock.epoch})" if is_last else ""
    rows = [head, val, [label, *(number(v) for v in test.values())], *baseline_rows(baselines, test)]
    text = table(rows)
    if max(map(len, text.splitlines())) >= width:
        text = table([list(column) for column in zip(*rows, strict=True)])
    classes = f"\n\n{of_classes(per_class)}" if isinstance(per_class, dict) else ""
    classes += f"\n\n{table(run.table)}" if run.table else ""
    return f"\n{text}{classes}\n\n{why}; {counted(clock.step, 'step')} in {clock.seconds:.1f} s; {run.folder}"


def of_classes(per_class: dict[str, dict[str, float | int | None]]) -> str:
    """The table of the classes on the test split; of more than SHOWN only those with the lowest F1."""
    shown, head = list(per_class.items()), "class"
    if len(shown) > SHOWN:
        shown = sorted(shown, key=lambda pair: (pair[1]["f1"] is None, pair[1]["f1"]))[:SHOWN]
        head = f"the {SHOWN} lowest F1 of {len(per_class)} classes"
    names = list(next(iter(per_class.values())))
    rows = [[label, *("-" if row[name] is None else number(row[name]) for name in names)] for label, row in shown]
    return table([[head, *names], *rows])
