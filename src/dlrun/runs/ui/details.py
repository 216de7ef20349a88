"""Details of the chosen runs, for the page: curves, configs, images, logs, a sweep's own page. No torch here."""

import os
from collections.abc import Sequence
from pathlib import Path

from dlrun.config.saved import plain, read_config
from dlrun.errors import UserError, printable
from dlrun.output.as_json import finite
from dlrun.output.folders import within
from dlrun.paths import open_plain, read_whole
from dlrun.runs.compare import differences, flatten, shown
from dlrun.runs.live import LiveRun, thinned

IMAGES = {".png": "image/png", ".gif": "image/gif"}
FOLDERS = ("plots", "images")
DRAWN = 1000  # the most rows of a curve
MOST = 200  # images of a run, the newest
TAIL = 64 * 1024  # bytes of a log


def curves(run: LiveRun) -> dict:
    """Return the metrics of a run: for rows of epochs and of steps, a list of values by name."""
    run.read_rows()
    return {
        "epochs": _columns(thinned(run.epochs, DRAWN)),
        "steps": _columns(thinned(run.steps, DRAWN)),
        "goal": run.goal,
    }


def _columns(rows: list[dict]) -> dict[str, list]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [finite(row.get(name)) for row in rows] for name in names}


def configs(runs: Sequence[LiveRun]) -> dict:
    """Return the config of one run, or the keys whose values differ between several, as texts by key."""
    if not runs:
        return {"all": {}}
    folders = [run.folder for run in runs]
    if len(folders) > 1:
        return {"different": differences(folders)}
    saved, _ = read_config(folders[0])
    return {"all": {key: [shown(value)] for key, value in flatten(plain(saved)).items()}}


def images(run: LiveRun) -> list[dict]:
    """List the plots and the preview images of a run, each with the time of its last change."""
    paths = [path for name in FOLDERS for path in sorted((run.folder / name).glob("*"))]
    paths = [path for path in paths if path.suffix in IMAGES and path.is_file() and not path.is_symlink()]
    plots = [path for path in paths if path.parent.name == FOLDERS[0]]
    others = sorted((path for path in paths if path not in plots), key=lambda path: path.stat().st_mtime)[-MOST:]
    return [{"path": f"{p.parent.name}/{p.name}", "changed": p.stat().st_mtime_ns // 10**6} for p in plots + others]


def image(run: LiveRun, path: str) -> tuple[bytes, str]:
    """Return an image and its type. Raises UserError for anything but an image in one of FOLDERS of the run."""
    folder, _, name = path.partition("/")
    kind, file = IMAGES.get(Path(name).suffix), run.folder / folder / name
    is_inside = folder in FOLDERS and "/" not in name and not (os.path.islink(file) or os.path.islink(file.parent))
    if kind is None or not is_inside:
        raise UserError(f"{printable(path)!r} is not an image of a run\n  expected plots/NAME.png or plots/NAME.gif")
    try:
        return read_whole(file), kind
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {printable(path)!r}: {error}") from None


def log(run: LiveRun) -> str:
    """Return the end of a run's log."""
    try:
        with open_plain(within(run.folder, "run.log")) as file:
            file.seek(0, 2)
            start = max(0, file.tell() - TAIL)
            file.seek(start)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "(no run.log)"
    return printable(text.partition("\n")[2] if start else text)


def sweep_page(folder: Path) -> str:
    """Return a sweep's page: curves, parallel coordinates, importance, jobs. Raises UserError if it is damaged."""
    from dlrun.sweep.report import Report
    from dlrun.sweep.state import load_state

    return Report(load_state(folder)).html()
