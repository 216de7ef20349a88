"""Report a run or a sweep as one HTML file: curves, confusion matrix, sample predictions, worst mistakes, config."""

import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.config.saved import own_config, require_finished
from dlrun.errors import DataError, counted, first_line
from dlrun.output.console import column, number
from dlrun.output.folders import read_summary, require_plain, within
from dlrun.output.rows import epoch_rows
from dlrun.paths import read_whole
from dlrun.runs import page
from dlrun.runs.columns import described
from dlrun.runs.show import changes, command_line, show_config
from dlrun.spec import Columns, Env, Function, Image, Mask, Series, Spec, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.data.base import SampleData
    from dlrun.sweep.state import State
    from dlrun.train.finished import FinishedRun

SHOWN = 12  # samples in each section
WORDS = 60  # the number of last words shown of a text


def report(folder: Path, out: Path | None) -> list[str]:
    """Write a run's page to `out`, or to report.html in its folder, and return lines to print.

    Raises UserError if the folder holds links: what they lead to would be copied into the page.
    """
    summary = require_finished(folder)
    require_plain(folder)
    own_config(folder)
    notes, samples = [], []
    try:
        samples = _samples(folder)
    except DataError as error:
        notes.append(f"without sample predictions: {first_line(error)}")
    sections = [
        ("Result", _result(folder, summary)),
        ("Classes, test", _classes(summary)),
        ("Curves and figures", page.figures(folder / "plots", _curves(folder, summary)) + _key(folder)),
        *samples,
        ("Sample predictions", f"<p>{page.escape(notes[0])}</p>" if notes else ""),
        ("Environment", page.facts(_environment(folder, summary))),
        ("Config", page.collapsible("the run's config", show_config(folder))),
    ]
    title = f"{summary.get('model')} on {summary.get('data')}"
    return [page.write(out or folder / "report.html", page.page(title, sections)), *notes]


def report_sweep(folder: Path, out: Path | None) -> list[str]:
    """Write a sweep's page anew from its state and return lines to print."""
    from dlrun.sweep.report import Report
    from dlrun.sweep.state import load_state

    state = load_state(folder)
    _record_left(state)
    return [page.write(out or within(folder, "report.html"), Report(state).html())]


def _record_left(state: "State") -> None:
    """Set the status of jobs that ran when their sweep was killed, in memory only: sweep.json is not written."""
    from dlrun.sweep.goals import goals
    from dlrun.sweep.outcomes import record
    from dlrun.sweep.workers import is_at_work

    for job in state.jobs:
        if job.status != "running":
            continue
        with suppress(OSError):  # unknown: left as it is
            if not (job.worker and is_at_work(state.folder, job.worker)):
                status = read_summary(state.run_folder(job)).get("status")
                if status in ("finished", "failed", "diverged"):
                    record(job, state.run_folder(job), 0 if status == "finished" else 1, goals(state))
                else:
                    job.status = "stopped"


def _result(folder: Path, summary: dict) -> str:
    best, test = _part(summary, "best"), _part(summary, "test")
    entries = {f"best {best['metric']}": f"{number(best['value'])} in epoch {best['epoch']}"} if best else {}
    entries |= {name: number(value) for name, value in test.items() if isinstance(value, int | float)}
    epochs = counted(summary.get("epochs", 0), "epoch")
    entries["steps"] = f"{summary.get('steps', 0):,} in {summary.get('seconds', 0):.1f} s, {epochs}"
    if summary.get("stopped_by") not in (None, "finished"):
        entries["stopped by"] = str(summary["stopped_by"])
    entries |= {
        f"from step {each['step']}": f"{each['key']}={each['to']}, before {each['from']}" for each in changes(summary)
    }
    return page.facts(entries)


def _classes(summary: dict) -> str:
    """Return the table of the classes; empty if the run has none."""
    classes = {k: row for k, row in _part(_part(summary, "test"), "per_class").items() if isinstance(row, dict)}
    names = list(dict.fromkeys(name for row in classes.values() for name in row))
    rows = [[label, *(row.get(n) for n in names)] for label, row in classes.items()]
    shown = [[label, *(number(v) if isinstance(v, int | float) else "-" for v in values)] for label, *values in rows]
    return page.table(["class", *names], shown) if shown else ""


def _part(summary: dict, name: str) -> dict:
    """Return a section of the summary; {} if it is missing or no dict."""
    part = summary.get(name)
    return part if isinstance(part, dict) else {}


def _curves(folder: Path, summary: dict) -> list[str]:
    """List the metrics to draw: the goal, the loss, other val metrics, then metrics that are only logged."""
    logged = [name for name in (epoch_rows(folder) or [{}])[-1] if name.startswith(("train/", "val/"))]
    names = [str(summary.get("goal")), "val/loss", *_part(summary, "scores"), *sorted(logged)]
    return list(dict.fromkeys(name.partition("/")[2] for name in names))


def _key(folder: Path) -> str:
    """Return the names of the classes that plots show by number."""
    try:
        text = read_whole(folder / "plots" / "classes.txt").decode()
    except (OSError, UnicodeDecodeError):
        return ""
    return f"<p>In the figures: {page.escape(', '.join(text.splitlines()))}</p>"


def _environment(folder: Path, summary: dict) -> dict[str, str]:
    entries = {"folder": str(folder), "command": command_line(folder)}
    names = ("task", "optimizer", "schedule", "experiment", "seed", "device", "precision", "parameters")
    entries |= {name: str(summary[name]) for name in names if summary.get(name) is not None}
    entries |= {name: str(version) for name, version in _part(summary, "versions").items()}
    if isinstance(summary.get("peak_memory_mb"), dict):
        entries["peak memory"] = ", ".join(f"{where} {mb} MB" for where, mb in summary["peak_memory_mb"].items())
    return entries | ({"commit": str(summary["git"])} if summary.get("git") else {})


def _samples(folder: Path) -> list[tuple[str, str]]:
    """Return sections with the worst mistakes and the first samples of the test split. Empty without targets."""
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder)
        if "inputs" not in run.task.accepts or isinstance(run.data.spec, Mask):  # masks are among the figures
            return []
        run.load_data()
        sections = _judged(run, run.sample_data)
    if isinstance(run.data.spec, Columns):
        return [("Columns", page.facts(described(folder, run.data.fitted()))), *sections]
    return sections


def _judged(run: "FinishedRun", data: "SampleData") -> list[tuple[str, str]]:
    import torch

    from dlrun.data.raw import decode

    batches = []
    for x, y in data.batches("test"):
        predicted = run.task.predict(x)
        batches.append((x.cpu(), y.cpu(), predicted.cpu(), run.task.decide(predicted).cpu()))
    y, predicted, best = (torch.cat([batch[i] for batch in batches]) for i in (1, 2, 3))
    size = len(batches[0][1])
    captions, wrong, badness = _captions(data.spec, y, predicted, best)
    ranked = badness.argsort(descending=True).tolist()
    if not isinstance(data.spec, Function) and data.spec.classes:
        ranked = [i for i in ranked if wrong[i]]
        head = f"The worst of {counted(int(wrong.sum()), 'mistake')} among {counted(len(y), 'test sample')}"
    else:
        head = f"The largest errors among {counted(len(y), 'test sample')}"
    names = (data.files("test") if hasattr(data, "files") else []) or [""] * len(y)

    def drawn(rows: list[int]) -> str:
        samples = [batches[i // size][0][i % size : i % size + 1] for i in rows]
        if isinstance(data.spec, Columns):
            inputs = _rows(run.table_data.decode(torch.cat(samples))) if samples else []
        else:
            inputs = _inputs(data.spec, [decode(data, x)[0] for x in samples])
        cells = [page.sample(html, captions[i], bool(wrong[i]), names[i]) for i, html in zip(rows, inputs, strict=True)]
        return page.samples(cells, isinstance(data.spec, Image))

    return [(head, drawn(ranked[:SHOWN])), ("Sample predictions", drawn(list(range(min(SHOWN, len(y))))))]


def _captions(
    spec: Spec, y: "Tensor", predicted: "Tensor", best: "Tensor"
) -> tuple[list[list[str]], "Tensor", "Tensor"]:
    """Return each sample's lines of text, whether its prediction is wrong (N,), and how bad it is (N,).

    best: the predicted classes (N,).
    """
    import torch

    from dlrun.runs.records import class_names

    if not isinstance(spec, Env | Function) and spec.classes:
        names, p = class_names(spec), predicted.gather(1, best[:, None]).squeeze(1)
        rows = zip(y.tolist(), best.tolist(), p.tolist(), strict=True)
        lines = [[f"true {names[label]}", f"predicted {names[k]} ({p:.3f})"] for label, k, p in rows]
        return lines, best != y, 1 - predicted.gather(1, y[:, None]).squeeze(1)
    columns = [column(torch.cat((y[:, k], predicted[:, k])).tolist()) for k in range(y.shape[1])]
    texts, unit = [", ".join(row) for row in zip(*columns, strict=True)], f" {getattr(spec, 'unit', '')}".rstrip()
    lines = [[f"true {texts[i]}{unit}", f"predicted {texts[len(y) + i]}{unit}"] for i in range(len(y))]
    return lines, torch.zeros(len(y), dtype=torch.bool), (predicted - y).abs().mean(1)


def _inputs(spec: Spec, raw: list) -> list[str]:
    """Return the inputs as HTML: images, texts, curves, or rows, with one number format per column."""
    if isinstance(spec, Image):
        return [page.image(_png(each), "input") for each in raw]
    if isinstance(spec, Tokens):
        words = [each.split() for each in raw]
        texts = [f"{'... ' if len(each) > WORDS else ''}{' '.join(each[-WORDS:])}" for each in words]
        return [f"<p>{page.escape(text)}</p>" for text in texts]
    if isinstance(spec, Series):
        return [page.lines(each[:, : spec.numbers].T.tolist()) for each in raw]
    names = getattr(spec, "names", ()) or [f"x{i + 1}" for i in range(spec.features)]
    columns = [column([each[k].item() for each in raw]) for k in range(spec.features)]
    return [page.facts({name: columns[k][i] for k, name in enumerate(names)}) for i in range(len(raw))]


def _rows(rows: list[dict[str, float | str]]) -> list[str]:
    """Return the rows of a table as HTML."""
    return [
        page.facts({name: value if isinstance(value, str) else number(value) for name, value in row.items()})
        for row in rows
    ]


def _png(raw: "Tensor") -> bytes:
    """Encode a uint8 image (C, H, W) as PNG."""
    import PIL.Image

    pixels = raw.permute(1, 2, 0).numpy()
    png = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]).save(png, "PNG")
    return png.getvalue()
