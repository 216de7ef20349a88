"""Predict with a finished run: outputs for inputs, samples from codes, or episodes in its environment."""

import argparse
import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.config.saved import own_config, require_finished
from dlrun.config.signatures import mismatch
from dlrun.errors import UserError, counted
from dlrun.output.as_json import as_json, finite
from dlrun.runs.written import whole
from dlrun.spec import Columns, Image, Mask, Spec, Tokens
from dlrun.types import Index, Size

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.train.finished import FinishedRun

WAYS = {
    "inputs": "inputs (images, texts or rows)",
    "images": "images",
    "latent": "--samples N, or --latent FILE with codes",
    "episodes": "--episodes N",
}


def predict(folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """Yield lines of JSON or CSV, or one line about the file with them. Raises UserError for wrong inputs."""
    for name in ("samples", "episodes"):
        if (count := getattr(args, name)) is not None and (expected := mismatch(count, Size)):
            raise UserError(f"--{name} {count}: expected {expected}")
    if expected := mismatch(args.seed, Index):
        raise UserError(f"--seed {args.seed}: expected {expected}")
    require_finished(folder)
    own_config(folder)  # report its errors before torch is imported
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": args.device} if args.device else {})
        way = _way(run, args)
        out = Path(args.out) if args.out else None
        is_mask = isinstance(run.data.spec, Mask)
        makes_images = is_mask or way == "images" or way == "latent" and len(run.data.spec.shape) == 3
        records = map(finite, _records(run, way, args, out if makes_images else None))
        is_csv = args.format == "csv" or args.format is None and bool(out) and out.suffix.lower() == ".csv"
        lines = _as_csv(records) if is_csv else (as_json(record) for record in records)
        if out and not makes_images:
            yield _write(lines, out, is_csv)
        else:
            yield from lines


def _way(run: "FinishedRun", args: argparse.Namespace) -> str:
    """Return the kind of input among WAYS that the user gave. Raises UserError unless it is one that the run takes."""
    sources = {"episodes": args.episodes, "latent": args.samples or args.latent, "inputs": args.inputs}
    if not any(sources.values()) and "latent" in run.task.takes:  # the number that the task draws for its plots
        args.samples = sources["latent"] = getattr(run.task, "n_samples", None)
    found = [name for name, value in sources.items() if value]
    takes = run.task.takes
    expected = " or ".join(kind(run.data.spec) if name == "inputs" else WAYS[name] for name in takes)
    if len(found) != 1 or args.samples and args.latent:
        problem = "no inputs to predict from" if not found else "several kinds of inputs"
        raise UserError(f"{problem}\n  this run ({run.names.get('model')}) takes {expected}")
    way = "images" if found == ["inputs"] and "images" in takes else found[0]
    if way not in takes:
        raise UserError(f"{WAYS[way]}: this run ({run.names.get('model')}) does not take them\n  expected {expected}")
    return way


def kind(spec: Spec) -> str:
    """Name the kind of a run's inputs."""
    if isinstance(spec, Image | Mask):
        return "images"
    if isinstance(spec, Columns):
        return "files of rows, with the columns of the run"
    return "texts" if isinstance(spec, Tokens) else "rows of numbers"


def _records(run: "FinishedRun", way: str, args: argparse.Namespace, out: Path | None) -> Iterator[dict]:
    """Yield a record per prediction. out: the folder for images; None: `predictions` in the run's folder."""
    if way == "episodes":
        for i, (total, length) in enumerate(run.task.play(run.data, args.episodes, args.seed)):
            yield {"episode": i, "return": total, "length": length}
        return
    if isinstance(run.data.spec, Columns):
        yield from _table_records(run, args)
        return
    if way == "latent":
        batches = _codes(run, args)
    else:
        batches = ((names, encode(run, way, values), None) for names, values in _batches(run, args))
    folder, taken = out or run.folder / "predictions", {}
    for names, x, more in batches:
        predicted = run.task.predict(x).cpu()
        if isinstance(run.data.spec, Mask):  # written as a grey image whose values are the classes
            predicted = predicted.argmax(1, keepdim=True) / 255
        if predicted.dim() == 4:
            yield from _images(names, predicted, folder, taken, more or {})
        else:
            yield from (
                {"input": name} | each | (more or {}) for name, each in zip(names, outputs(run, predicted), strict=True)
            )


def _table_records(run: "FinishedRun", args: argparse.Namespace) -> Iterator[dict]:
    """Yield a record per row of a table: the row as it is written, then its prediction."""
    from dlrun.runs import inputs

    learned, size = run.data.fitted()["columns"], run.data.eval_batch_size
    for name, frame, x in inputs.tables(args.inputs, run.data):
        where = f"{name}, row " if len(args.inputs) > 1 else "row "
        for first in range(0, len(x), size):
            rows = frame[first : first + size].iter_rows(named=True)
            predicted = run.task.predict(x[first : first + size]).cpu()
            for number, (row, each) in enumerate(zip(rows, outputs(run, predicted), strict=True), first + 1):
                found = {"input": f"{where}{number}", **each}
                # a prediction never replaces a column that the run needs: the file can be predicted from again
                yield row | {f"predicted {key}" if key in learned else key: value for key, value in found.items()}


def encode(run: "FinishedRun", way: str, raw: object) -> "Tensor":
    """Encode raw inputs for `predict`. way: "inputs", or "images" for images in [0, 1]."""
    from dlrun.tasks.images import rescaled

    x = run.data.encode(raw)
    return next(rescaled(iter([(x, None)]), run.data, 0.0, 1.0))[0] if way == "images" else x


def _batches(run: "FinishedRun", args: argparse.Namespace) -> Iterator[tuple[list[str], object]]:
    """Yield (names, raw inputs) in batches of the size used for evaluation."""
    import numpy as np
    import torch

    from dlrun.runs import inputs

    data, spec = run.data, run.data.spec
    if isinstance(spec, Image | Mask):
        config = run.config["data"]
        source = config.get("source") or {}
        is_folder = "folder" in source.get("_target_", "")
        fit = getattr(data, "fit", "cover" if args.fit or is_folder else None)  # as in training
        most = config.get("max_pixels") or source.get("max_pixels") or inputs.MAX_PIXELS
        decoding = inputs.Decoding(most, getattr(data, "levels", None))
        found, join = inputs.images(args.inputs, getattr(data, "stored", spec.shape), fit, decoding), torch.stack
    elif isinstance(spec, Tokens):
        found, join = inputs.texts(args.inputs), list
    else:
        found, join = inputs.rows(args.inputs, spec), np.array
    count = 0
    while batch := list(islice(found, data.eval_batch_size)):
        yield [name for name, _ in batch], join([value for _, value in batch])
        count += len(batch)
    if not count:
        where = ", ".join("standard input" if text == inputs.STDIN else text for text in args.inputs)
        raise UserError(f"{where}: no inputs\n  expected {kind(spec)}")


def _codes(run: "FinishedRun", args: argparse.Namespace) -> Iterator[tuple[list[str], "Tensor", dict]]:
    """Yield (names, codes (B, latent), extra fields), drawn with the seed or read from a file."""
    import torch

    from dlrun.runs import inputs
    from dlrun.seeds import generator
    from dlrun.spec import Table

    device, latent, size = run.device.torch_device, run.task.net.latent, run.data.eval_batch_size
    if args.samples:
        z = torch.randn(args.samples, latent, generator=generator(device, 0, args.seed), device=device)
        for first in range(0, len(z), size):
            batch = z[first : first + size]
            yield [f"sample_{first + i}_of_seed_{args.seed}" for i in range(len(batch))], batch, {"seed": args.seed}
        return
    found, count = inputs.rows([args.latent], Table(latent)), 0
    while rows := [row for _, row in islice(found, size)]:
        yield [f"code_{count + i}" for i in range(len(rows))], torch.tensor(rows, device=device), {}
        count += len(rows)
    if not count:
        raise UserError(f"--latent {args.latent}: it has no codes\n  expected rows of {latent} numbers")


def outputs(run: "FinishedRun", predicted: "Tensor") -> Iterator[dict]:
    """Yield a record per sample: the likeliest class with all probabilities, real outputs, or a row of a table."""
    import numpy as np

    spec, values = run.data.spec, predicted.numpy()
    if values.dtype == np.float32:
        shown = [[float(str(value)) for value in row] for row in values]  # the shortest text of the float32
    else:
        shown = values.tolist()
    if "inputs" not in run.task.takes:
        names = getattr(spec, "names", ()) or [f"x{i + 1}" for i in range(values.shape[1])]
        yield from (dict(zip(names, row, strict=True)) for row in shown)
    elif spec.classes:
        labels = class_names(spec)
        for row, best in zip(shown, values.argmax(1).tolist(), strict=True):
            yield {
                "label": labels[best],
                "probability": row[best],
                "probabilities": dict(zip(labels, row, strict=True)),
            }
    else:
        unit = {"unit": spec.unit} if getattr(spec, "unit", "") else {}
        targets = getattr(spec, "target_names", ())
        if len(targets) > 1:
            yield from (dict(zip((f"output {name}" for name in targets), row, strict=True)) | unit for row in shown)
            return
        yield from ({"output": row[0] if len(row) == 1 else row} | unit for row in shown)


def class_names(spec: Spec) -> list[str]:
    """Return the classes' names, or their numbers if they have no names."""
    return list(spec.labels) if len(set(spec.labels)) == spec.classes else list(map(str, range(spec.classes)))


def _images(names: list[str], predicted: "Tensor", folder: Path, taken: dict[str, int], more: dict) -> Iterator[dict]:
    """Write images (B, C, H, W) in [0, 1] as PNGs, each whole or not at all, and yield their records."""
    from PIL.Image import fromarray

    pixels = (predicted.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}\n  expected a writable folder") from None
    for name, image in zip(names, pixels, strict=True):
        path = folder / f"{_free(Path(name).stem, taken)}.png"
        with whole(path) as temporary:
            fromarray(image[..., 0] if image.shape[2] == 1 else image).save(temporary, "PNG")
        yield {"input": name, "image": str(path), **more}


def _free(stem: str, taken: dict[str, int]) -> str:
    """Return a name that no other image has, since images of several folders may share a name.

    taken: how often each name was used; case-folded, because X.png and x.png are one file on some systems.
    """
    name, key = stem, stem.casefold()
    while name.casefold() in taken:
        taken[key] += 1
        name = f"{stem}_{taken[key]}"
    taken[name.casefold()] = 1
    return name


def _as_csv(records: Iterable[dict]) -> Iterator[str]:
    """Yield CSV lines, first the head. Each probability has its own column."""
    head = None
    for record in records:
        flat = {key: value for key, value in record.items() if not isinstance(value, dict | list)}
        for key, value in record.items():
            if isinstance(value, dict):
                flat |= {f"p({name})": each for name, each in value.items()}
            elif isinstance(value, list):
                flat |= {f"{key}_{i + 1}": each for i, each in enumerate(value)}
        if head is None:
            head = list(flat)
            yield _csv_line(head)
        yield _csv_line([flat[key] for key in head])


def _csv_line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _write(lines: Iterable[str], path: Path, has_head: bool) -> str:
    """Write all lines to a file, whole or not at all. has_head: the first line is not a prediction."""
    count = 0 - has_head
    with whole(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        for count, line in enumerate(lines, 1 - has_head):  # noqa: B007
            file.write(line + "\n")
    return f"{counted(count, 'prediction')} in {path}"
