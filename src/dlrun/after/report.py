"""A run, or a sweep, as one HTML file: curves, confusion matrix, sample predictions with the worst mistakes, config."""

import io
from contextlib import suppress
from pathlib import Path

from dlrun.after import page
from dlrun.after.show import command_line, show_config
from dlrun.config.saved import own_config, require_finished
from dlrun.errors import DataError
from dlrun.output.console import number
from dlrun.output.folders import read_summary

SHOWN = 12  # samples of a kind
WORDS = 60  # of a text, the last ones


def report(folder: Path, out: Path | None) -> list[str]:
    """Lines to print; the page is written to `out`, or to report.html in the run's folder."""
    summary = require_finished(folder)
    own_config(folder)
    notes, samples = [], []
    try:
        samples = _samples(folder)
    except DataError as error:
        notes.append(f"without sample predictions: {str(error).splitlines()[0]}")
    sections = [
        ("Result", _result(folder, summary)),
        ("Curves and figures", page.figures(folder / "plots")),
        *samples,
        ("Sample predictions", f"<p>{page.escape(notes[0])}</p>" if notes else ""),
        ("Environment", page.facts(_environment(folder, summary))),
        ("Config", page.folded("the run's own config", show_config(folder))),
    ]
    title = f"{summary.get('model')} on {summary.get('data')}"
    return [page.write(out or folder / "report.html", page.page(title, sections)), *notes]


def report_sweep(folder: Path, out: Path | None) -> list[str]:
    """The sweep's own page, as it writes it while it goes, made anew from its state."""
    from dlrun.sweep.report import Report
    from dlrun.sweep.state import load_state

    state = load_state(folder)
    _settle_left(state)
    return [page.write(out or folder / "report.html", Report(state).html())]


def _settle_left(state: object) -> None:
    """Jobs that were running when their sweep was killed count as what became of them; its state is not written."""
    from dlrun.sweep.outcomes import settle
    from dlrun.sweep.report import goals
    from dlrun.sweep.workers import is_at_work

    for job in state.jobs:
        if job.status != "running":
            continue
        with suppress(OSError):  # where it cannot be known it is left as it is
            if not (job.worker and is_at_work(state.folder, job.worker)):
                said = read_summary(state.run_folder(job)).get("status")
                if said in ("finished", "failed", "diverged"):
                    settle(job, state.run_folder(job), 0 if said == "finished" else 1, goals(state))
                else:
                    job.status = "stopped"


def _result(folder: Path, summary: dict) -> str:
    best = summary.get("best") if isinstance(summary.get("best"), dict) else {}
    test = summary.get("test") if isinstance(summary.get("test"), dict) else {}
    found = {f"best {best['metric']}": f"{number(best['value'])} in epoch {best['epoch']}"} if best else {}
    found |= {name: number(value) for name, value in test.items() if isinstance(value, int | float)}
    found["steps"] = f"{summary.get('steps', 0):,} in {summary.get('seconds', 0):.1f} s, {summary.get('epochs')} epochs"
    if summary.get("stopped_by") not in (None, "finished"):
        found["stopped by"] = str(summary["stopped_by"])
    return page.facts(found)


def _environment(folder: Path, summary: dict) -> dict[str, str]:
    found = {"folder": str(folder), "command": command_line(folder)}
    names = ("task", "optimizer", "schedule", "experiment", "seed", "device", "precision", "parameters")
    found |= {name: str(summary[name]) for name in names if summary.get(name) is not None}
    versions = summary.get("versions") if isinstance(summary.get("versions"), dict) else {}
    found |= {name: str(version) for name, version in versions.items()}
    if isinstance(summary.get("peak_memory_mb"), dict):
        found["peak memory"] = ", ".join(f"{where} {mb} MB" for where, mb in summary["peak_memory_mb"].items())
    return found | ({"commit": str(summary["git"])} if summary.get("git") else {})


def _samples(folder: Path) -> list[tuple[str, str]]:
    """The worst mistakes of the test part, and its first samples. Nothing for tasks without targets."""
    from dlrun.finished import Finished
    from dlrun.processes.machine import within_memory
    from dlrun.spec import Mask

    with within_memory():
        run = Finished(folder)
        if "inputs" not in run.task.takes or isinstance(run.data.spec, Mask):  # whose masks are among the figures
            return []
        return _judged(run, run.load_data())


def _judged(run: object, data: object) -> list[tuple[str, str]]:
    import torch

    from dlrun.after.predict import class_names
    from dlrun.data.raw import decode

    spec, found = data.spec, []
    for x, y in data.batches("test"):
        predicted = run.task.predict(x).cpu()
        found.append((x.cpu(), y.cpu(), predicted))
    y, predicted = (torch.cat([batch[i] for batch in found]) for i in (1, 2))
    size = len(found[0][1])
    if spec.classes:
        names, best = class_names(spec), predicted.argmax(1)
        wrong, badness = best != y, 1 - predicted.gather(1, y[:, None]).squeeze(1)
        pairs = zip(y.tolist(), best.tolist(), predicted.max(1).values.tolist(), strict=True)
        said = [f"true {names[label]}, said {names[k]} ({p:.3f})" for label, k, p in pairs]
        ranked = [i for i in badness.argsort(descending=True).tolist() if wrong[i]][:SHOWN]
        head = f"The worst of {int(wrong.sum()):,} mistakes among {len(y):,} test samples"
    else:
        badness = (predicted - y).abs().mean(1)
        wrong = torch.zeros(len(y), dtype=torch.bool)
        pairs = zip(y.tolist(), predicted.tolist(), strict=True)
        said = [f"true {_numbers(target)}, said {_numbers(out)} {spec.unit}".rstrip() for target, out in pairs]
        ranked = badness.argsort(descending=True).tolist()[:SHOWN]
        head = f"The largest errors among {len(y):,} test samples"

    def drawn(rows: list[int]) -> str:
        raw = [decode(data, found[i // size][0][i % size : i % size + 1])[0] for i in rows]
        figures = [page.sample(_input(spec, each), said[i], bool(wrong[i])) for i, each in zip(rows, raw, strict=True)]
        return f'<div class="samples">{"".join(figures)}</div>' if figures else "<p>none</p>"

    return [(head, drawn(ranked)), ("Sample predictions", drawn(list(range(min(SHOWN, len(y))))))]


def _numbers(values: list[float]) -> str:
    return ", ".join(number(value) for value in values)


def _input(spec: object, raw: object) -> str:
    """What the network was given, as HTML: a picture, a text, or a row."""
    from dlrun.spec import Image, Tokens

    if isinstance(spec, Image):
        import PIL.Image

        pixels = raw.permute(1, 2, 0).numpy()
        picture = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
        png = io.BytesIO()
        picture.save(png, "PNG")
        return page.picture(png.getvalue(), "input")
    if isinstance(spec, Tokens):
        words = raw.split()
        return f"<p>{'... ' if len(words) > WORDS else ''}{page.escape(' '.join(words[-WORDS:]))}</p>"
    names = spec.names or [f"x{i + 1}" for i in range(spec.features)]
    return page.facts({name: f"{value:g}" for name, value in zip(names, raw.tolist(), strict=True)})
