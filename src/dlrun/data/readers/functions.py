"""Functions of one or more variables with closed formulas, and the loss of a line over points.

Source: the book, sections 1.5.3, 2.1 to 2.3, 5.6.6, 6.4, 6.6, 7.3 to 7.8, 10.8, 11.8, 13.7. Names and ranges are
the book's where it states them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.readers.tables import linear
from dlrun.errors import DataError
from dlrun.spec import Function
from dlrun.types import Count, NonNegative, Seed


@dataclass(frozen=True)
class Formula(Function):
    """A function with its formula: one tensor for each variable -> the values. least: where it is least, if known."""

    formula: Callable[..., Tensor] = torch.add
    least: tuple[tuple[float, ...], ...] = ()

    @property
    def minima(self) -> tuple[tuple[float, ...], ...]:
        return self.least

    def at(self, points: Tensor) -> Tensor:
        return self.formula(*points.unbind(-1))


def himmelblau(x: Tensor, y: Tensor) -> Tensor:
    """(x^2 + y - 11)^2 + (x + y^2 - 7)^2: four minima, all of value 0 (the book, section 7.8)."""
    return (x.square() + y - 11).square() + (x + y.square() - 7).square()


def sinc(x: Tensor, y: Tensor) -> Tensor:
    """sin(r) / r, r the distance from the origin (the book, section 5.6.6, whose formula has r^2 and whose code r)."""
    return torch.sinc((x.square() + y.square() + 1e-12).sqrt() / torch.pi)  # torch's sinc is sin(pi r) / (pi r)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """-(cos^2 x + cos^2 y)^2, whose gradients the book draws as arrows (section 2.2)."""
    return -(x.cos().square() + y.cos().square()).square()


def entropy(*shares: Tensor) -> Tensor:
    """-sum of p log2 p, in bits (the book, section 6.6.2)."""
    return -torch.stack([torch.xlogy(p, p) for p in shares]).sum(0) / log(2)


def binary_entropy(p: Tensor) -> Tensor:
    """The entropy of two outcomes with probabilities p and 1 - p, in bits."""
    return entropy(p, 1 - p)


def kl(p: Tensor | float, q: Tensor | float) -> Tensor:
    """KL(p || q) of two outcomes with probabilities p, 1 - p and q, 1 - q, in nats."""
    p, q = torch.as_tensor(p), torch.as_tensor(q)
    return torch.xlogy(p, p / q) + torch.xlogy(1 - p, (1 - p) / (1 - q))


def two_points(w: Tensor, b: Tensor) -> Tensor:
    """The mean squared error of y = w x + b at (1, 1.567) and (2, 3.043) (the book, section 2.1)."""
    return ((w + b - 1.567).square() + (2 * w + b - 3.043).square()) / 2


def lstm_cell(input_gate: Tensor, forget_gate: Tensor) -> Tensor:
    """An LSTM's new cell state, from the state 1 and the candidate 0.5 (the book, section 11.8, table 11.1)."""
    return forget_gate * 1.0 + input_gate * 0.5


def js_of_lines(theta: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of two parallel lines at a distance of theta (the book, section 13.7), in nats."""
    return torch.where(theta == 0, 0.0, log(2)) + 0 * theta


def scaled_inputs(scale: float, centre: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean squared error of w1 x1 + w2 x2 where the true weights are 1, over its greatest curvature.

    x1 is uniform in [1, 10], x2 in [scale, 10 scale], independent of each other; centre: both standardised. Divided by
    the greatest curvature, so that gradient descent is as fast as it can be with the same rate for all (the book,
    section 10.8, figure 10.40).
    """
    square, product = (1.0, 0.0) if centre else (37.0, 30.25)  # the means of x^2 and of x1 x2 for a scale of 1
    matrix = torch.tensor([[square, product * scale], [product * scale, square * scale**2]], dtype=torch.float64)
    matrix = matrix / torch.linalg.eigvalsh(matrix)[-1]

    def error(w1: Tensor, w2: Tensor) -> Tensor:
        errors = torch.stack([w1, w2], -1) - 1
        return 0.5 * (errors @ matrix.to(errors) * errors).sum(-1)

    return error


def batch_norm_toy(gamma: Tensor, beta: Tensor) -> Tensor:
    """The mean of out^2 - 1 over the 3 channels of a batch normalisation, as one of them varies (section 10.8).

    Its inputs have the variance 0.25 and eps is Keras's 1e-3, so that normalised inputs have a variance below 1.
    """
    return (gamma.square() * (0.25 / (0.25 + 1e-3)) + beta.square()) / 3 - 1


FOUND = ((3.0, 2.0), (-2.805118, 3.131313), (-3.779310, -3.283186), (3.584428, -1.848127))
PLANE, UNITS, LOGITS = (("x", "y"), 6.0), (("x",), 6.0), (("z",), 6.0)  # the variables, which go from -6 to 6
FORMULAS: dict[str, tuple] = {  # variables, their ends (one: from -end to end), formula, minima
    "himmelblau": (*PLANE, himmelblau, FOUND),
    "bowl": (("x", "y"), 5.0, lambda x, y: x.square() + y.square(), ((0.0, 0.0),)),
    "saddle": (("x", "y"), 5.0, lambda x, y: y.square() - x.square()),
    "sinc": (("x", "y"), 8.0, sinc),
    "cosines": (("x", "y"), 2.0, cosines, ((0.0, 0.0),)),
    "two_points": (("w", "b"), 3.0, two_points, ((1.476, 0.091),)),
    "multiplications": (("n",), (1.0, 1e7), lambda n: 1 * n),  # of a row of n numbers with a column (section 1.5.3)
    "square_sine": (("x",), 10.0, lambda x: x.square() * x.sin()),
    "parabola": (("w",), 6.0, lambda w: w.square() + 2 * w + 3, ((-1.0,),)),  # section 1.5.3: a, b, c = 1, 2, 3
    "chain": (("w",), 4.0, lambda w: 2 * (w + 1) + 1),  # section 7.6: y2 = y1 w2 + b2 with y1 = x w + b1
    "step": (*UNITS, lambda x: (x >= 0).to(x.dtype) + 0 * x),
    "sigmoid": (*UNITS, torch.sigmoid),
    "relu": (*UNITS, F.relu),
    "leaky_relu": (*UNITS, lambda x: F.leaky_relu(x, 0.1)),
    "tanh": (*UNITS, torch.tanh),
    "squared_error": (("o",), 3.0, lambda o: 0.5 * (o - 1).square(), ((1.0,),)),  # the target is 1
    "sigmoid_squared_error": (*LOGITS, lambda z: 0.5 * (z.sigmoid() - 1).square()),
    "cross_entropy": (*LOGITS, lambda z: F.softplus(-z)),  # -log sigmoid(z), for a sample of the class
    "hinge": (("h",), 3.0, lambda h: F.relu(1 - h)),
    "entropy": (("p1", "p2", "p3", "p4"), (0.0, 1.0), entropy),
    "binary_entropy": (("p",), (0.0, 1.0), binary_entropy),
    "forward_kl": (("q",), (0.02, 0.98), lambda q: kl(0.2, q), ((0.2,),)),
    "reverse_kl": (("q",), (0.02, 0.98), lambda q: kl(q, 0.2), ((0.2,),)),
    "js_of_lines": (("theta",), 1.0, js_of_lines, ((0.0,),)),
    "em_of_lines": (("theta",), 1.0, torch.abs, ((0.0,),)),  # the earth mover's distance of the same lines
    "lstm_cell": (("input_gate", "forget_gate"), (-0.1, 1.1), lstm_cell),  # gates are in [0, 1]
    "even_inputs": (("w1", "w2"), 3.0, scaled_inputs(1, centre=False), ((1.0, 1.0),)),
    "uneven_inputs": (("w1", "w2"), 3.0, scaled_inputs(100, centre=False), ((1.0, 1.0),)),
    "normalised_inputs": (("w1", "w2"), 3.0, scaled_inputs(1, centre=True), ((1.0, 1.0),)),
    "batch_norm_toy": (("gamma", "beta"), 1.5, batch_norm_toy, ((0.0, 0.0),)),
}


def named(
    *,
    name: Literal[
        "himmelblau", "bowl", "saddle", "sinc", "cosines", "square_sine", "parabola", "chain", "step", "sigmoid",
        "relu", "leaky_relu", "tanh", "squared_error", "sigmoid_squared_error", "cross_entropy", "hinge", "entropy",
        "binary_entropy", "forward_kl", "reverse_kl", "js_of_lines", "em_of_lines", "lstm_cell", "even_inputs",
        "uneven_inputs", "normalised_inputs", "batch_norm_toy", "two_points", "multiplications"
    ],
) -> Formula:  # fmt: skip
    """A function of the table above."""
    names, ends, formula, *least = FORMULAS[name]
    low, high = ends if isinstance(ends, tuple) else (-ends, ends)
    return Formula(names, (low,) * len(names), (high,) * len(names), formula, *least)


def line(
    *, samples: Count, w: float, b: float, noise: NonNegative, low: float, high: float, random_state: Seed
) -> Formula:
    """The mean squared error of y = w x + b over noisy points of a true line, as a function of (w, b).

    The book, sections 2.1 to 2.3. The minimum is that of least squares. Keys: see `readers.tables.linear`.
    """
    points = linear(
        samples=samples, test_samples=1, w=w, b=b, noise=noise, low=low, high=high, random_state=random_state
    )
    x, y = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
    if samples < 2:
        raise DataError(f"data.source.samples={samples}: many lines go through one point\n  expected 2 or more")
    exact = torch.cat([x, torch.ones_like(x)], 1).double()
    best = torch.linalg.lstsq(exact, y.double()).solution.squeeze(1).tolist()
    x, y = x.squeeze(1), y.squeeze(1)

    def error(w: Tensor, b: Tensor) -> Tensor:
        errors = w[..., None] * x.to(w) + b[..., None] - y.to(w)  # (..., samples)
        return errors.square().mean(-1)

    reach = (best[0] - 3, best[1] - 3), (best[0] + 3, best[1] + 3)
    return Formula(("w", "b"), *reach, error, (tuple(best),))
