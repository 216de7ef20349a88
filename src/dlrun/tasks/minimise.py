"""Minimise a function, or draw it: points move over it, each by itself.

Source: the book, sections 2.1 to 2.3 (a line by random search and by gradient descent) and 7.8 (Himmelblau's function).
"""

import io
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import SampleData
from dlrun.errors import UserError
from dlrun.models.point import Point
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.output.surfaces import contours, curve, descent, surface
from dlrun.spec import Function
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask

SHOWN = 20  # most points in the table at the end
KINK = 1e-2  # slopes to the left and to the right that differ by more, in parts of the slope or of 1, are no slope
STEP = 1e-5  # of central differences, times max(1, |x|): about the cube root of the rounding of float64


class Path:
    """The positions of the points after each step, the starts first."""

    def __init__(self, start: Tensor) -> None:
        self.positions = [start.detach().cpu().clone()]

    def add(self, position: Tensor) -> None:
        self.positions.append(position.detach().cpu().clone())

    def state_dict(self) -> dict[str, Tensor]:
        return {"positions": torch.stack(self.positions)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.positions = list(state["positions"])


class Minimise(SampleTask):
    """Moves points towards lower values of a function.

    method: "gradient": the optimizer steps along the gradient by autograd. "numeric": along central differences.
    "random": each step draws a point in the function's range and keeps it if it is lower (pure random search); the
    optimizer does nothing. "none": the points stay, and the run only draws the function.
    """

    compiled = ()

    def __init__(
        self,
        net: Point,
        spec: Function,
        device: Device,
        update: Callable[..., Update],
        *,
        method: Literal["gradient", "numeric", "random", "none"],
    ) -> None:
        if device.dist.size > 1:
            raise UserError(
                f"task=minimise moves its points in one process, and trainer.processes={device.dist.size}\n"
                "  expected trainer.processes=1"
            )
        super().__init__(net, device)
        self.net: Point = net
        self.spec, self.method = spec, method
        self.update = update(net)
        self.path = Path(net.position)
        self.components |= {"update": self.update, "path": self.path}
        self.scores = {"f": "min"}
        self.goal = None if method == "none" else "f"  # a drawing is not better than another one

    def step(self, batch: tuple[Tensor, Tensor], clock: Clock) -> Metrics:
        before = self.measured()
        if self.method == "random":
            self._draw()
        elif self.method != "none" and not self.update.step(self._loss(batch[0]), clock):
            return {}
        if self.method != "none":
            self.path.add(self.net.position)
        return before

    @torch.no_grad()
    def measured(self) -> Metrics:
        """The mean value over the points; of a single point also the coordinates."""
        position = self.net.position.detach()
        coordinates = dict(zip(self.spec.names, position[0].clone(), strict=True)) if len(position) == 1 else {}
        return {"f": self.spec.at(position).mean(), **coordinates}

    def _loss(self, zero: Tensor) -> Tensor:
        """The sum over the points of f, or of its tangent plane by central differences; autograd takes its gradient."""
        if self.method == "gradient":
            return self.net(zero).sum()
        position = self.net.position
        slopes = central_differences(self.spec, position.detach()).to(position.dtype)
        return self.spec.at(position.detach()).sum() + (slopes * (position - position.detach())).sum()

    @torch.no_grad()
    def _draw(self) -> None:
        """Pure random search: uniform in the function's range, by torch's generator, which is seeded for each step."""
        position = self.net.position
        low, high = (torch.tensor(ends, device=position.device) for ends in (self.spec.low, self.spec.high))
        drawn = low + (high - low) * torch.rand(position.shape, device=position.device)
        is_lower = self.spec.at(drawn) < self.spec.at(position)
        position.copy_(torch.where(is_lower[:, None], drawn, position))

    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        """The mean value over the points; of a single point also the coordinates, which have no better direction."""
        return {name: value.item() for name, value in self.measured().items()}

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """The function's values at points (B, variables): (B, 1)."""
        return self.spec.at(batch)[:, None]

    def report(self, data: SampleData) -> Report:
        """Each point's end with its value and gradient, a file with all positions, and drawings."""
        paths = torch.stack(self.path.positions).numpy()  # (steps + 1, points, variables)
        values = self.spec.at(torch.from_numpy(paths)).numpy()
        figures: dict[str, Callable] = {"descent": partial(descent, values, paths[0])} if len(paths) > 1 else {}
        if self.spec.features == 1:
            figures["curve"] = partial(curve, self.spec, paths)
        elif self.spec.features == 2:
            figures |= {"contours": partial(contours, self.spec, paths), "surface": partial(surface, self.spec, paths)}
        ends = self.net.position.detach().cpu().double().requires_grad_()
        at_ends = self.spec.at(ends)
        (slopes,) = torch.autograd.grad(at_ends.sum(), ends)
        left, right = one_sided_differences(self.spec, ends.detach())
        numeric = (left + right) / 2
        smooth = (right - left).abs() <= KINK * numeric.abs().clamp(min=1)  # False for what is not a number
        columns = (paths[0].tolist(), ends.tolist(), at_ends.tolist(), slopes.tolist(), numeric.tolist())
        names = ("start", "end", "f", "gradient", "numeric_gradient")
        points: list[dict] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        for place, is_smooth in zip(points, smooth.tolist(), strict=True):
            if not all(is_smooth):
                place["kinks"] = [name for name, good in zip(self.spec.names, is_smooth, strict=True) if not good]
        errors = (slopes - numeric).abs()[smooth]
        return Report(
            figures,
            files={"path.csv": as_csv(self.spec.names, paths, values)},
            numbers={"points": points, "gradient_error": errors.max().item() if len(errors) else None},
            table=rows_of(points, self.spec.names, len(paths) > 1),
        )


@torch.no_grad()
def one_sided_differences(spec: Function, points: Tensor) -> tuple[Tensor, Tensor]:
    """The slopes to the left and to the right of points, for each variable, in float64: two (points, variables)."""
    points = points.double()
    left, right = torch.empty_like(points), torch.empty_like(points)
    for k in range(points.shape[1]):
        h = torch.zeros_like(points)
        h[:, k] = STEP * points[:, k].abs().clamp(min=1)
        value = spec.at(points)
        left[:, k] = (value - spec.at(points - h)) / h[:, k]
        right[:, k] = (spec.at(points + h) - value) / h[:, k]
    return left, right


def central_differences(spec: Function, points: Tensor) -> Tensor:
    """(f(x + h) - f(x - h)) / 2 h for each variable, in float64: (points, variables) -> the same shape."""
    left, right = one_sided_differences(spec, points)
    return (left + right) / 2


def rows_of(points: list[dict], names: tuple[str, ...], moved: bool) -> list[list[str]]:
    """A table of points: where they began if they moved, where they are, f, and of one variable the derivative."""
    with_slope = len(names) == 1
    rows = [["from"] * moved + [*names, "f"] + ["f'"] * with_slope]
    for place in points[:SHOWN]:
        slope = "kink" if place.get("kinks") else f"{place['gradient'][0] + 0.0:.6g}"
        start = ", ".join(f"{number:.6g}" for number in place["start"])
        numbers = [f"{number + 0.0:.6g}" for number in (*place["end"], place["f"])]
        rows.append([start] * moved + numbers + [slope] * with_slope)
    return rows


def as_csv(names: tuple[str, ...], paths: np.ndarray, values: np.ndarray) -> str:
    """A line for each step and point: step, point, coordinates, value."""
    text = io.StringIO()
    text.write(",".join(("step", "point", *names, "f")) + "\n")
    for step, (positions, heights) in enumerate(zip(paths.tolist(), values.tolist(), strict=True)):
        for k, (position, height) in enumerate(zip(positions, heights, strict=True)):
            text.write(",".join(map(repr, (step, k, *position, height))) + "\n")
    return text.getvalue()
