"""Forecasts without learning, listed with every result: the last value, and the value one season ago."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dlrun.data.resident import distinct
from dlrun.data.series.windows import ResidentWindows

LONGEST = 100_000  # rows from which the season is found
LEAST = 0.2  # autocorrelation of a season


def season_of(values: np.ndarray, longest: int) -> int:
    """Return the lag in 2 .. longest at which the autocorrelation of a series has its highest peak; 0 without any.

    values: (steps,), without gaps.
    """
    x = np.diff(values[-LONGEST:])  # without the trend
    if len(x) < 4 or not np.ptp(x):
        return 0
    x = x - x.mean()
    spectrum = np.fft.rfft(x, 2 * len(x))
    lags = np.fft.irfft(np.abs(spectrum) ** 2)[: min(longest, len(x) // 2) + 2]
    lags = lags / lags[0]
    peaks = [i for i in range(2, len(lags) - 1) if lags[i] > max(lags[i - 1], lags[i + 1], LEAST)]
    return max(peaks, key=lambda i: lags[i], default=0)


def forecasts(data: ResidentWindows, rows: Tensor, season: int) -> dict[str, Tensor]:
    """Return the forecasts for windows by name, each as the targets are: (B, steps * targets) or (B,).

    season: steps; 0: none. A season that is longer than a window is not known to the network, so it is left out.
    """
    targets, length = data.y["train_arrays"], data.form.length
    ahead = data.target_steps - length  # steps after the window
    source_steps = {"last value": torch.full_like(ahead, length - 1)}
    if 1 < season <= length:
        source_steps[f"season of {season}"] = length + ahead % season - season
    shape = (len(rows), -1) if targets.dim() == 2 else (len(rows),)
    return {
        name: targets.index_select(0, (rows[:, None] + steps).flatten()).view(shape)
        for name, steps in source_steps.items()
    }


def baselines(data: ResidentWindows, split: str, season: int, batch_size: int) -> dict[str, dict[str, float]]:
    """Return the metrics of the forecasts on a split: acc, or mae and mse over the values that are known."""
    sums: dict[str, np.ndarray] = {}
    for name, pairs in _pairs(data, split, season, batch_size):
        predicted, y = pairs
        if y.dim() == 1:
            sums[name] = sums.get(name, np.zeros(2)) + [(predicted == y).sum().item(), len(y)]
            continue
        error = (predicted - y)[~predicted.isnan()].double().cpu().numpy()
        sums[name] = sums.get(name, np.zeros(3)) + [np.abs(error).sum(), (error**2).sum(), error.size]
    names = ("acc",) if data.y["train_arrays"].dim() == 1 else ("mae", "mse")
    return {
        name: dict(zip(names, (total[:-1] / max(1, total[-1])).tolist(), strict=True)) for name, total in sums.items()
    }


def _pairs(
    data: ResidentWindows, split: str, season: int, batch_size: int
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    rows_of = torch.cat([data.rows[each] for each in distinct(data.rows)]) if split == "all" else data.rows[split]
    for rows in rows_of.split(batch_size):
        y = data.targets_at("train_arrays", rows)
        for name, predicted in forecasts(data, rows, season).items():
            yield name, (predicted, y)
