"""What data is: frozen facts that the data states and networks are built from. Nothing else states a shape twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

from dlrun.types import Range, Size

Classes = Annotated[int, Range(2, 10**5)]


@dataclass(frozen=True)
class Image:
    """Pictures of one size, each of one class.

    shape: (channels, height, width). classes: labels are 0 .. classes - 1; None where there are no labels.
    labels: the classes' names, in order, where they have any.
    """

    shape: tuple[Size, Size, Size]
    classes: Classes | None = None
    labels: tuple[str, ...] = ()

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        """Numbers that a classifier gives per sample: one logit for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes or 0

    def __str__(self) -> str:
        return f"Image(shape={'x'.join(map(str, self.shape))}, classes={self.classes})"


@dataclass(frozen=True)
class Table:
    """Rows of real features, each with a class or with real targets.

    features: columns. classes: labels are 0 .. classes - 1, or None for regression. targets: real numbers per row.
    names, labels: the columns' and the classes' names, in order, where they have any. unit: of the target, for plots.
    """

    features: Size
    classes: Classes | None = None
    targets: Annotated[int, Range(0, 10**6)] = 0
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def shape(self) -> tuple[int]:
        return (self.features,)

    @property
    def outputs(self) -> int:
        """Numbers that a network gives per sample: one logit for two classes, one per class, or one per target."""
        return 1 if self.classes == 2 else self.classes or self.targets

    def __str__(self) -> str:
        kind = f"classes={self.classes}" if self.classes else f"targets={self.targets}"
        return f"Table(features={self.features}, {kind})"


@dataclass(frozen=True)
class Env:
    """An environment to act in, as its data makes it.

    obs: shape of an observation, real numbers. actions: discrete ones are 0 .. actions - 1; None where they are real
    vectors between low and high. goal: the return from which it counts as solved, if any. states: whether observations
    are states, one-hot. All None or empty: read from the environment.
    """

    obs: tuple[Size] | None = None
    actions: Size | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    goal: float | None = None
    states: bool | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.obs or ()

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        """Numbers that a policy gives per observation: one logit per action, or one mean per axis."""
        return self.actions or len(self.low)

    def __str__(self) -> str:
        kind = f"actions={self.actions}" if self.actions else f"real actions={len(self.low)}"
        obs = f"states={self.features}" if self.states else f"obs={self.features}"
        return f"Env({obs}, {kind})" if self.obs else "Env(read from the environment)"


@dataclass(frozen=True)
class Tokens:
    """Texts as rows of whole numbers, each of one class.

    length: tokens in a row. vocab: ids are 0 .. vocab - 1; 0 pads, 1 starts a text, 2 is any other word, 3 is not used.
    classes, labels: as of an Image.
    """

    length: Size
    vocab: Annotated[int, Range(5, 10**7)]
    classes: Classes | None = None
    labels: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def outputs(self) -> int:
        """Numbers that a classifier gives per sample: one logit for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes or 0

    def words(self) -> tuple[str, ...]:
        """The vocabulary, in the order of its ids from 4 on, where the data can tell; reads the data."""
        return ()

    def __str__(self) -> str:
        return f"Tokens(length={self.length}, vocab={self.vocab}, classes={self.classes})"


@dataclass(frozen=True)
class Mask:
    """Pictures of one size with a mask each: a class for every pixel.

    shape: (channels, height, width). classes: a pixel's class is in 0 .. classes - 1. ignore: the number in masks that
    stands for pixels that are not counted; None where there are none. labels: the classes' names, in order, if any.
    """

    shape: tuple[Size, Size, Size]
    classes: Annotated[int, Range(1, 255)]
    ignore: Annotated[int, Range(0, 255)] | None = None
    labels: tuple[str, ...] = ()

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        """Numbers that a network gives per pixel: one logit per class."""
        return self.classes

    def __str__(self) -> str:
        return f"Mask(shape={'x'.join(map(str, self.shape))}, classes={self.classes})"


Spec = Image | Table | Tokens | Env | Mask


class Unlabelled:
    """In a builder's annotation, as in Image | Unlabelled: that it learns from data without classes or targets, too."""


LARGE = 64  # pixels of the shorter side


def form_for(shape: Sequence[int]) -> str:
    """Of a net for pictures (C, H, W)."""
    return "imagenet" if len(shape) == 3 and min(shape[1:]) >= LARGE else "cifar"
