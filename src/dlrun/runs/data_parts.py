"""A data set, read and told: its spec, its parts, and how its classes are spread."""

import torch

from dlrun.config.build import build
from dlrun.output.console import number, table
from dlrun.output.failures import within_memory
from dlrun.spec import Env, Mask


def describe(name: str, config: dict) -> list[str]:
    """Lines to print. Raises DataError where the data is not here, damaged, or not what its spec says."""
    with within_memory():
        data = build(config)
        data.load(torch.device("cpu"))
        lines = [f"{name}: {data.spec}", data.describe()]
        if isinstance(data.spec, Env):
            return [*lines, "nothing is stored: environments are played"]
        is_mask = isinstance(data.spec, Mask)
        what = "targets" if not data.spec.classes else "pixels a class" if is_mask else "samples a class"
        rows = [["part", "samples", what]]
        for part in ("train", "val", "test"):
            y = torch.cat([y.cpu() for _, y in data.batches(part)])
            rows.append([part, f"{len(y):,}", _spread(_counted(y, data.spec) if is_mask else y, data.spec.classes)])
    return [*lines, "", table(rows)]


def _counted(y: torch.Tensor, spec: Mask) -> torch.Tensor:
    """The classes of all pixels that count."""
    return y.flatten() if spec.ignore is None else y[y != spec.ignore]


def _spread(y: torch.Tensor, classes: int | None) -> str:
    """How many samples the smallest and the largest class have; the range of targets."""
    if classes:
        counts = torch.bincount(y, minlength=classes)
        low, high = int(counts.min()), int(counts.max())
        return f"{low:,} to {high:,}" if low != high else f"{low:,}"
    return f"{number(y.min().item())} to {number(y.max().item())}" if y.is_floating_point() else "-"
