"""Several runs side by side: their curves in one picture, and a table of what differs in their configs."""

import math
import os
from pathlib import Path

from dlrun.config.saved import plain, read_config
from dlrun.errors import UserError, nearest
from dlrun.output.console import number, table
from dlrun.output.folders import STARTED
from dlrun.output.rows import epoch_rows
from dlrun.runs.listing import facts
from dlrun.runs.written import whole

PLACES = ("run_dir", "output_dir", "resume", "data_dir")  # differ without making a difference
UNTOLD = ("_target_", "data_dir", "mirrors", "checksums", "download")
PANELS = 4
LEGEND = 70  # letters of a run in the legend
WIDE = 6  # runs that fit beside each other in a table


def jobs_of(folder: Path) -> list[Path]:
    """The runs in a sweep's folder, in the order of their numbers; none where it is no sweep."""
    if not os.path.isdir(folder) or os.path.exists(folder / STARTED):  # unlike Path, they take any name
        return []
    found = [path.parent.parent for path in folder.glob(f"*/{STARTED}")]
    found = [path for path in found if not path.is_symlink()]  # a sweep's best is one of its jobs
    return sorted(found, key=lambda path: (int(path.name) if path.name.isdigit() else math.inf, path.name))


def compare(folders: list[Path], metrics: list[str] | None, out: Path) -> list[str]:
    """Lines to print; the picture is written to `out`. Raises UserError where there are not two runs with curves."""
    folders = list(dict.fromkeys(folders))
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run to compare: expected two or more, or a sweep")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: expected a file named *.png")
    rows = [epoch_rows(folder) for folder in folders]
    names = common_metrics(folders, rows, metrics)
    different = differences(folders)
    from PIL import Image

    from dlrun.output.drawing import render

    pixels = render(lambda: curves(rows, names, labels(folders, different)))
    with whole(out) as temporary:
        Image.fromarray(pixels).save(temporary, "png", dpi=(110, 110))
    numbered = [f"{i}  {folder}" for i, folder in zip(numbers(folders), folders, strict=True)]
    return [*numbered, "", table(cells(folders, different)), "", f"{', '.join(names)}: {out}"]


def common_metrics(folders: list[Path], rows: list[list[dict]], wanted: list[str] | None) -> list[str]:
    """The val metrics that all runs have, or those that are wanted and at least one has."""
    for folder, found in zip(folders, rows, strict=True):
        if not found:
            raise UserError(
                f"{folder} has no curve: its metrics.jsonl has no epoch\n  expected runs of an epoch or more"
            )
    have = [list(dict.fromkeys(key for row in found for key in row if "/" in key)) for found in rows]
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
            "the runs have no val metric in common\n" + "\n".join(lines) + "\n  expected one: --metric names others"
        )
    return common[:PANELS]


def differences(folders: list[Path]) -> dict[str, list[str]]:
    """The config keys whose values are not the same in all the runs, each with its values as text."""
    flat = []
    for folder in folders:
        saved, names = read_config(folder)
        config = {key: value for key, value in plain(saved).items() if key not in PLACES}
        choices = {group: names[group] for group in config if isinstance(names.get(group), str)}
        flat.append(choices | flatten(config))
    keys = list(dict.fromkeys(key for each in flat for key in each))
    found = {key: [shown(each[key]) if key in each else "-" for each in flat] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def flatten(config: dict, prefix: str = "") -> dict[str, object]:
    """Dotted keys; targets, which the choices say, and where data comes from are left out."""
    found = {}
    for key, value in config.items():
        if key in UNTOLD:
            continue
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def shown(value: object) -> str:
    text = (
        {None: "null", True: "true", False: "false"}.get(value)
        if value is None or isinstance(value, bool)
        else str(value)
    )
    return text if len(text) <= 40 else text[:37] + "..."


def numbers(folders: list[Path]) -> list[str]:
    """What runs are called in tables and legends: the jobs of one sweep have numbers of their own."""
    is_sweep = len({folder.parent for folder in folders}) == 1 and all(folder.name.isdigit() for folder in folders)
    return [folder.name if is_sweep else str(i) for i, folder in enumerate(folders, 1)]


def labels(folders: list[Path], different: dict[str, list[str]]) -> list[str]:
    """For the legend: the number, and the first of what differs."""
    keys = [key for key in different if key not in ("task", "optimizer", "schedule") or len(different) < 4][:3]
    words = [[f"{key}={different[key][i]}" for key in keys] for i in range(len(folders))]
    return [f"{i}  {' '.join(each)}"[:LEGEND] for i, each in zip(numbers(folders), words, strict=True)]


def cells(folders: list[Path], different: dict[str, list[str]]) -> list[list[str]]:
    """The table of differences and results: a column per run, or a row per run where they are many."""
    found = [facts(folder) for folder in folders]
    columns = {"": numbers(folders)} | different
    columns["status"] = [each["status"] for each in found]
    for name in dict.fromkeys(name for each in found for name in each["metrics"]):
        values = [each["metrics"].get(name) for each in found]
        columns[name] = [number(v) if isinstance(v, int | float) else "-" for v in values]
    columns["seconds"] = [f"{s:.1f}" if isinstance(s := each["seconds"], int | float) else "-" for each in found]
    rows = [[name, *values] for name, values in columns.items()]
    return rows if len(folders) <= WIDE else [list(row) for row in zip(*rows, strict=True)]


def curves(rows: list[list[dict]], names: list[str], legend: list[str]) -> object:
    """A panel per metric; a run has the same colour in all of them."""
    from dlrun.output.drawing import COLOURS, drawable, new_figure, plain_ticks, scaled

    figure, panels = new_figure(5.2 * len(names), 4.0 + 0.22 * -(-len(legend) // min(2, len(names))), len(names))
    legend = drawable(legend, [word.encode("ascii", "backslashreplace").decode() for word in legend], LEGEND)
    for axes, name in zip([panels] if len(names) == 1 else panels, names, strict=True):
        drawn = []
        for i, found in enumerate(rows):
            points = [(row["epoch"], row[name]) for row in found if isinstance(row.get(name), int | float)]
            points = [point for point in points if math.isfinite(point[1])]
            x, y = zip(*points, strict=True) if points else ((), ())
            dash = "none" if len(points) < 3 else ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            dots = {"marker": "o", "markersize": 4} if len(points) < 30 else {}
            axes.plot(x, y, linestyle=dash, color=COLOURS[i % len(COLOURS)], linewidth=1.5, label=legend[i], **dots)
            drawn += y
        scaled(axes, drawn)
        plain_ticks(axes.xaxis, whole=True)
        axes.set(xlabel="epoch", title=name)
        axes.grid()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(2, len(names)))
    return figure
