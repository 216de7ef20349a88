"""Compare several runs: their curves in one image, and a table of the differences between their configs."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.config.saved import plain, read_config
from dlrun.errors import UserError, nearest
from dlrun.output.as_json import as_json, finite
from dlrun.output.console import number, table
from dlrun.output.folders import STARTED
from dlrun.output.rows import epoch_rows
from dlrun.output.written import whole
from dlrun.runs.listing import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATHS = ("run_dir", "output_dir", "resume", "data_dir")  # do not affect the results
HIDDEN = ("_target_", "data_dir", "mirrors", "checksums", "download")
PANELS = 4
LEGEND = 70  # characters per run in the legend
WIDE = 6  # the most runs that get a column each


def jobs_of(folder: Path) -> list[Path]:
    """List the runs in a sweep's folder by their numbers. Empty if the folder is not a sweep's."""
    if not os.path.isdir(folder) or os.path.exists(folder / STARTED):  # unlike Path's methods, these accept any name
        return []
    runs = [path.parent.parent for path in folder.glob(f"*/{STARTED}")]
    runs = [path for path in runs if not path.is_symlink()]  # `best` links to one of the jobs
    return sorted(runs, key=lambda path: (int(path.name) if path.name.isdigit() else math.inf, path.name))


def compare(folders: list[Path], metrics: list[str] | None, out: Path, is_json: bool = False) -> list[str]:
    """Write the image to `out` and return lines to print; is_json: one line of JSON.

    Raises UserError for fewer than two runs with curves.
    """
    folders = list(dict.fromkeys(folders))
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run to compare: expected two or more, or a sweep")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: expected a file named *.png")
    rows = [epoch_rows(folder) for folder in folders]
    names = common_metrics(folders, rows, metrics)
    different = differences(folders)
    from PIL import Image

    from dlrun.output.figures import render

    pixels = render(lambda: curves(rows, names, labels(folders, different)))
    with whole(out) as temporary:
        Image.fromarray(pixels).save(temporary, "png", dpi=(110, 110))
    if is_json:
        runs = [{name: value for name, value in facts(folder).items() if name != "shown"} for folder in folders]
        return [as_json(finite({"runs": runs, "differences": different, "curves": names, "image": str(out)}))]
    numbered = [f"{i}  {folder}" for i, folder in zip(numbers(folders), folders, strict=True)]
    return [*numbered, "", table(cells(folders, different)), "", f"{', '.join(names)}: {out}"]


def common_metrics(folders: list[Path], rows: list[list[dict]], wanted: list[str] | None) -> list[str]:
    """Return the val metrics that all runs have, or the wanted ones if each is in at least one run."""
    for folder, epochs in zip(folders, rows, strict=True):
        if not epochs:
            raise UserError(
                f"{folder} has no curve: its metrics.jsonl has no epoch\n  expected runs of at least one epoch"
            )
    have = [list(dict.fromkeys(key for row in epochs for key in row if "/" in key)) for epochs in rows]
    if wanted:
        known = list(dict.fromkeys(name for names in have for name in names))
        for name in wanted:
            if name not in known:
                raise UserError(
                    f"--metric {name}: no run has it{nearest(name, known)}\n  expected one of: {', '.join(known)}"
                )
        return wanted
    common = [name for name in have[0] if name.startswith("val/") and all(name in names for names in have)]
    if not common:
        lines = [
            f"  {folder}: {', '.join(n for n in names if n.startswith('val/'))}"
            for folder, names in zip(folders, have, strict=True)
        ]
        raise UserError(
            "the runs have no val metric in common\n" + "\n".join(lines) + "\n  expected one; --metric M chooses any"
        )
    return common[:PANELS]


def differences(folders: list[Path]) -> dict[str, list[str]]:
    """Return the config keys whose values differ between the runs, each with its values as text."""
    flat = []
    for folder in folders:
        saved, names = read_config(folder)
        config = {key: value for key, value in plain(saved).items() if key not in PATHS}
        choices = {group: names[group] for group in config if isinstance(names.get(group), str)}
        flat.append(choices | flatten(config))
    keys = list(dict.fromkeys(key for each in flat for key in each))
    texts = {key: [shown(each[key]) if key in each else "-" for each in flat] for key in keys}
    return {key: values for key, values in texts.items() if len(set(values)) > 1}


def flatten(config: dict, prefix: str = "") -> dict[str, object]:
    """Flatten a config to dotted keys, without targets, which the choices show, and without sources of downloads."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if key in HIDDEN:
            continue
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def shown(value: object) -> str:
    """Format a config value in at most 40 characters."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def numbers(folders: list[Path]) -> list[str]:
    """Return the runs' names in tables and legends: the job numbers in a sweep, else 1, 2, ..."""
    is_sweep = len({folder.parent for folder in folders}) == 1 and all(folder.name.isdigit() for folder in folders)
    return [folder.name if is_sweep else str(i) for i, folder in enumerate(folders, 1)]


def labels(folders: list[Path], different: dict[str, list[str]]) -> list[str]:
    """Return the legend: each run's number and its first differing keys."""
    keys = [key for key in different if key not in ("task", "optimizer", "schedule") or len(different) < 4][:3]
    words = [[f"{key}={different[key][i]}" for key in keys] for i in range(len(folders))]
    return [f"{i}  {' '.join(each)}"[:LEGEND] for i, each in zip(numbers(folders), words, strict=True)]


def cells(folders: list[Path], different: dict[str, list[str]]) -> list[list[str]]:
    """Return the table of differences and results, with a column per run, or a row per run for more than WIDE runs."""
    runs = [facts(folder) for folder in folders]
    columns = {"": numbers(folders)} | different
    columns["status"] = [each["status"] for each in runs]
    for name in dict.fromkeys(name for each in runs for name in each["metrics"]):
        values = [each["metrics"].get(name) for each in runs]
        columns[name] = [number(v) if isinstance(v, int | float) else "-" for v in values]
    columns["seconds"] = [f"{s:.1f}" if isinstance(s := each["seconds"], int | float) else "-" for each in runs]
    rows = [[name, *values] for name, values in columns.items()]
    return rows if len(folders) <= WIDE else [list(row) for row in zip(*rows, strict=True)]


def curves(rows: list[list[dict]], names: list[str], legend: list[str]) -> "Figure":
    """Draw a panel per metric. A run has the same colour in all panels."""
    from dlrun.output.figures import COLOURS, drawable, new_figure, plain_ticks, scaled

    figure, panels = new_figure(5.2 * len(names), 4.0 + 0.22 * -(-len(legend) // min(2, len(names))), len(names))
    legend = drawable(legend, [word.encode("ascii", "backslashreplace").decode() for word in legend], LEGEND)
    for axes, name in zip([panels] if len(names) == 1 else panels, names, strict=True):
        drawn: list[float] = []
        for i, epochs in enumerate(rows):
            points = [(row["epoch"], row[name]) for row in epochs if isinstance(row.get(name), int | float)]
            points = [point for point in points if math.isfinite(point[1])]
            x, y = zip(*points, strict=True) if points else ((), ())
            dash = "none" if len(points) < 3 else ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            marker, colour = "o" if len(points) < 30 else None, COLOURS[i % len(COLOURS)]
            axes.plot(x, y, ls=dash, color=colour, linewidth=1.5, marker=marker, markersize=4, label=legend[i])
            drawn += y
        scaled(axes, drawn)
        plain_ticks(axes.xaxis, whole=True)
        axes.set(xlabel="epoch", title=name)
        axes.grid()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(2, len(names)))
    return figure
