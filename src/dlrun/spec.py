"""Specs: frozen descriptions of data, from which networks are built. Only the data states its shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

from dlrun.types import Range, Size

if TYPE_CHECKING:
    from torch import Tensor

Classes = Annotated[int, Range(2, 10**5)]


@dataclass(frozen=True)
class Image:
    """Images of one size, each of one class.

    shape: (channels, height, width). classes: labels are 0 .. classes - 1; None without labels.
    labels: the classes' names in order, if any.
    """

    shape: tuple[Size, Size, Size]
    classes: Classes | None = None
    labels: tuple[str, ...] = ()

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        """Number of a classifier's outputs per sample: one logit for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes or 0

    def __str__(self) -> str:
        return f"Image(shape={'x'.join(map(str, self.shape))}, classes={self.classes})"


@dataclass(frozen=True)
class Table:
    """Rows of real features, each with a class or with real targets.

    features: number of columns. classes: labels are 0 .. classes - 1; None for regression. targets: real numbers per
    row. target_means, target_stds: of the targets over the train split, by which a task standardises them; empty: it
    learns them as they are. names, labels: the columns' and the classes' names in order, if any. unit: of the target,
    for plots.
    """

    features: Size
    classes: Classes | None = None
    targets: Annotated[int, Range(0, 10**6)] = 0
    target_means: tuple[float, ...] = ()
    target_stds: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def shape(self) -> tuple[int]:
        return (self.features,)

    @property
    def outputs(self) -> int:
        """Number of a network's outputs per sample: one logit for two classes, one per class, or one per target."""
        return 1 if self.classes == 2 else self.classes or self.targets

    def __str__(self) -> str:
        kind = f"classes={self.classes}" if self.classes else f"targets={self.targets}"
        return f"Table(features={self.features}, {kind})"


@dataclass(frozen=True)
class Columns:
    """Rows of a table whose columns are numbers and categories, each row with a class or with real targets.

    numbers: columns of real numbers, which come first. levels: for each of the other columns, the number of its levels;
    their values are codes 1 .. levels, and 0 for a level that training has not seen. classes: labels are
    0 .. classes - 1; None for regression. targets: real numbers per row. target_means, target_stds: of the targets over
    the train split, by which a task standardises them. names, labels, target_names: of columns, classes and targets.
    unit: of the targets. categories: how a network takes them. Without columns: the table is read first.
    """

    numbers: Annotated[int, Range(0, 10**6)] = 0
    levels: tuple[Size, ...] = ()
    classes: Classes | None = None
    targets: Annotated[int, Range(0, 10**6)] = 0
    target_means: tuple[float, ...] = ()
    target_stds: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    unit: str = ""
    categories: Literal["embed", "one_hot"] = "embed"

    @property
    def features(self) -> int:
        return self.numbers + len(self.levels)

    @property
    def shape(self) -> tuple[int]:
        return (self.features,)

    @property
    def outputs(self) -> int:
        """Number of a network's outputs per row: one logit for two classes, one per class, or one per target."""
        return 1 if self.classes == 2 else self.classes or self.targets

    def __str__(self) -> str:
        if not self.features:
            return "Columns(read from the table)"
        kind = f"classes={self.classes}" if self.classes else f"targets={self.targets}"
        return f"Columns(numbers={self.numbers}, categories={len(self.levels)}, {kind})"


@dataclass(frozen=True)
class Series:
    """Windows of a series, or whole series: rows of columns at equal steps of time, each with a class or real targets.

    length: steps of a window. features: columns of a step, numbers first. levels: for each of the last columns, which
    are categories, the number of its levels; codes as in Columns. classes: labels are 0 .. classes - 1; None for
    regression. targets: real numbers per window. target_means, target_stds: of the targets over the train split, by
    which a task standardises them. names, labels, target_names: of columns, classes and targets. unit: of the targets.
    categories: how a network takes them. last: the columns with the past of the targets, standardised alike, if a
    network shall learn the change since the window's last step; else (). Without columns, all is to be read from the
    data.
    """

    length: Annotated[int, Range(0, 10**6)] = 0
    features: Annotated[int, Range(0, 10**6)] = 0
    levels: tuple[Size, ...] = ()
    classes: Classes | None = None
    targets: Annotated[int, Range(0, 10**6)] = 0
    target_means: tuple[float, ...] = ()
    target_stds: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    unit: str = ""
    categories: Literal["embed", "one_hot"] = "embed"
    last: tuple[int, ...] = ()

    @property
    def numbers(self) -> int:
        """Number of a step's columns that are real numbers."""
        return self.features - len(self.levels)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.length, self.features)

    @property
    def outputs(self) -> int:
        """Number of a network's outputs per window: one logit for two classes, one per class, or one per target."""
        return 1 if self.classes == 2 else self.classes or self.targets

    def __str__(self) -> str:
        if not self.features:
            return "Series(read from the data)"
        kind = f"classes={self.classes}" if self.classes else f"targets={self.targets}"
        return f"Series(length={self.length}, features={self.features}, {kind})"


ObsShape = tuple[Size] | tuple[Size, Size, Size]


@dataclass(frozen=True)
class Env:
    """An environment to act in.

    obs: shape of an observation: (features,) of real numbers, or (channels, height, width) of pixels, 0 .. 255.
    actions: number of discrete actions; None if actions are real vectors between low and high. goal: the return from
    which the environment counts as solved, if any. states: whether observations are one-hot states. If all are None or
    empty, they are read from the environment.
    """

    obs: ObsShape | None = None
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
    def has_pixels(self) -> bool:
        """Whether observations are images."""
        return len(self.shape) == 3

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """The type of an observation's numbers, in NumPy and torch."""
        return "uint8" if self.has_pixels else "float32"

    @property
    def outputs(self) -> int:
        """Number of a policy's outputs per observation: one logit per action, or one mean per axis."""
        return self.actions or len(self.low)

    def __str__(self) -> str:
        kind = f"actions={self.actions}" if self.actions else f"real actions={len(self.low)}"
        obs = f"states={self.features}" if self.states else f"obs={'x'.join(map(str, self.shape))}"
        return f"Env({obs}, {kind})" if self.obs else "Env(read from the environment)"


@dataclass(frozen=True)
class Tokens:
    """Texts as rows of token ids, each of one class.

    length: tokens in a row. vocab: ids are 0 .. vocab - 1; 0: padding, 1: start of a text, 2: any other word, 3: not
    used. classes: labels are 0 .. classes - 1; None without labels. labels: the classes' names in order, if any.
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
        """Number of a classifier's outputs per sample: one logit for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes or 0

    def words(self) -> tuple[str, ...]:
        """Return the vocabulary in the order of its ids from 4 on, or () if it is unknown. May read the data."""
        return ()

    @property
    def is_restored(self) -> bool:
        """Whether the vocabulary is that of a finished run, whose weights will be loaded into the network."""
        return False

    def __str__(self) -> str:
        return f"Tokens(length={self.length}, vocab={self.vocab}, classes={self.classes})"


@dataclass(frozen=True)
class Words(Tokens):
    """The words of a vocabulary, each with how often it occurs beside each other one; new inputs are texts of them.

    length: tokens that are kept of a text. vocab: ids as in Tokens, of which those from 4 on are words.
    """

    def __str__(self) -> str:
        return f"Words(vocab={self.vocab})"


@dataclass(frozen=True)
class Mask:
    """Images of one size, each with a mask: a class for every pixel.

    shape: (channels, height, width). classes: a pixel's class is in 0 .. classes - 1. ignore: the number in masks for
    pixels that are not counted, if any. labels: the classes' names in order, if any.
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
        """Number of a network's outputs per pixel: one logit per class."""
        return self.classes

    def __str__(self) -> str:
        return f"Mask(shape={'x'.join(map(str, self.shape))}, classes={self.classes})"


@dataclass(frozen=True)
class Function:
    """A function of real variables, to be drawn or minimised.

    names: of the variables. low, high: the range of each in which the function is drawn and searched. If they are
    empty, they are those of the function that the data names.
    """

    names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int]:
        return (len(self.names),)

    @property
    def features(self) -> int:
        return len(self.names)

    @property
    def outputs(self) -> int:
        """Number of values at a point."""
        return 1

    @property
    def minima(self) -> tuple[tuple[float, ...], ...]:
        """The known points at which the function is least, if any."""
        return ()

    def at(self, points: "Tensor") -> "Tensor":
        """The values at points: (..., variables) -> (...)."""
        raise NotImplementedError(f"{type(self).__name__} must define at()")

    def __str__(self) -> str:
        return f"Function({', '.join(self.names) or 'named by the data'})"


Labelled = Image | Table | Columns | Series | Tokens | Mask  # may have classes
SampleSpec = Labelled | Function | Words
Spec = SampleSpec | Env


if TYPE_CHECKING:
    Unlabelled = NoReturn  # it has no values: for a type checker, Image | Unlabelled is Image
else:

    class Unlabelled:
        """In a builder's annotation (Image | Unlabelled): it also learns from data without classes or targets."""


LARGE = 64  # pixels of the shorter side


def form_for(shape: Sequence[int]) -> Literal["imagenet", "cifar"]:
    """Return the form of a network for images (C, H, W): "imagenet" for large images, else "cifar"."""
    return "imagenet" if len(shape) == 3 and min(shape[1:]) >= LARGE else "cifar"
