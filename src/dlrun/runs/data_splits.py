"""Describe a data set: its spec, its splits, and the distribution of its classes."""

import torch

from dlrun.config.build import build
from dlrun.output.console import number, table
from dlrun.output.failures import within_memory
from dlrun.spec import Env, Function, Mask


def describe(name: str, config: dict) -> list[str]:
    """Return lines to print. Raises DataError if the data is missing, damaged, or differs from its spec."""
    with within_memory():
        data = build(config)
        data.load(torch.device("cpu"))
        lines = [f"{name}: {data.spec}", data.describe()]
        if isinstance(data.spec, Env):
            return [*lines, "no stored samples: episodes are played in the environment"]
        if isinstance(data.spec, Function):
            return [*lines, "no stored samples: the function is evaluated where it is needed"]
        is_mask = isinstance(data.spec, Mask)
        unit = "targets" if not data.spec.classes else "pixels per class" if is_mask else "samples per class"
        rows = [["split", "samples", unit]]
        for split in ("train", "val", "test"):
            y = torch.cat([y.cpu() for _, y in data.batches(split)])
            rows.append([split, f"{len(y):,}", _spread(_counted(y, data.spec) if is_mask else y, data.spec.classes)])
    return [*lines, "", table(rows)]


def _counted(y: torch.Tensor, spec: Mask) -> torch.Tensor:
    """Return the classes of all counted pixels."""
    return y.flatten() if spec.ignore is None else y[y != spec.ignore]


def _spread(y: torch.Tensor, classes: int | None) -> str:
    """Format the sizes of the smallest and the largest class, or the range of real targets."""
    if classes:
        counts = torch.bincount(y, minlength=classes)
        low, high = int(counts.min()), int(counts.max())
        return f"{low:,} to {high:,}" if low != high else f"{low:,}"
    return f"{number(y.min().item())} to {number(y.max().item())}" if y.is_floating_point() else "-"
