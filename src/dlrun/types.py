"""Types of hyper-parameters, with ranges. Configs are checked against them before anything heavy is imported.

A builder's config keys are its keyword-only parameters, annotated with these types; `config/check.py` checks the config
against the annotations. No torch.
"""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from polars import DataFrame

    from dlrun.data.base import Arrays
    from dlrun.data.images.augment import Augment
    from dlrun.data.images.masks import Pairs
    from dlrun.data.texts.corpus import Corpus
    from dlrun.models.embedding import Embed


@dataclass(frozen=True)
class Range:
    """An interval. `open_low` and `open_high` exclude the bound itself."""

    low: float = -inf
    high: float = inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def expected(self, value: object) -> str:
        """Describe the range for a message about `value`. A bound of a million or more is named only if exceeded."""
        if self.high >= 10**6:
            is_above = isinstance(value, int | float) and value > self.high
            return f"of at most {self.high:,}" if is_above else f"{'>' if self.open_low else '>='} {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


class Filled:
    """Texts that are not empty or blank."""

    def __contains__(self, text: str) -> bool:
        return bool(text.strip())

    def expected(self, value: object) -> str:
        return "that is not empty"


class BestOf:
    """Texts such as best3: the number of best epochs."""

    def __contains__(self, text: str) -> bool:
        return text.startswith("best") and text[4:].isdecimal() and 1 <= int(text[4:]) <= 1000

    def expected(self, value: object) -> str:
        return "such as best3"


def is_text(value: object) -> bool:
    """Whether it is a text that can be a path: no zero byte in it, and no name that is too long for a file."""
    return isinstance(value, str) and "\0" not in value and not is_too_long(value)


def is_too_long(text: str) -> bool:
    """Whether a path is too long: more than 255 bytes between two slashes, or more than 4,095 in all."""
    raw = text.encode(errors="surrogateescape")
    return len(raw) > 4095 or max(map(len, raw.split(b"/"))) > 255


Count = Annotated[int, Range(1, 10**9)]  # of steps, samples, frames
Size = Annotated[int, Range(1, 10**6)]  # of a layer, a row, a batch: memory that is allocated at once
Few = Annotated[int, Range(1, 1000)]  # of things that are made or done one by one: layers, epochs
Processes = Annotated[int, Range(1, 100)]  # that one machine runs together
Index = Annotated[int, Range(0, 10**9)]
Byte = Annotated[int, Range(0, 255)]  # a number of a mask's pixels
Seed = Annotated[int, Range(0, 2**32 - 1)]  # NumPy's range
LARGEST_SEED = 2**63 - 1  # of a run
RunSeed = Annotated[int, Range(0, LARGEST_SEED)]
Name = Annotated[str, Filled()]
Keep = Annotated[str, BestOf()]
Positive = Annotated[float, Range(0, open_low=True)]
Entry = Annotated[float, Range(-1e6, 1e6)]  # of a kernel, whose products stay finite
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, open_low=True)]  # more than nothing
Factor = Annotated[float, Range(1e-6, 1e6)]  # of what is scaled and must not vanish
Fraction = Annotated[float, Range(0, 1)]
Probability = Annotated[float, Range(0, 1, open_high=True)]  # dropout, momentum, decay: 1 would leave nothing

Pixels = Annotated[int, Range(8, 512)]  # of a side of an image that is made small
FrameStack = Annotated[int, Range(1, 32)]  # observations in one
Convolution = tuple[Size, Few, Few]  # channels, kernel, stride

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "elu"]
Norm = Literal["none", "batch", "layer", "instance", "group"]
Tokenization = Literal["words", "characters", "keras"]  # see data/texts/words.py
Kind = Literal[
    "filters", "matrices", "embeddings", "head", "norms", "biases", "others"
]  # of parameters: optim/kinds.py
Sampler = Literal["none", "balanced"]  # the order of an epoch: data/orders.py
Threshold = Annotated[float, Range(0, 1, open_low=True, open_high=True)] | Literal["f1", "balanced_acc", "mcc", "acc"]
Average = Literal["auto", "macro", "micro", "weighted", "per_class"]  # over classes: tasks/metrics/__init__.py
OfTargets = Literal["mean", "per_target"]
Pool = Literal["mean", "max"]  # how a map becomes one number: models/heads.py
Init = Literal["torch", "keras", "kaiming", "xavier", "orthogonal"]  # keras: Glorot uniform, zero bias (the book's)


KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Located(Filled):
    """A path of the user's data, searched for in the working folder and under the data folder."""


DataPath = Annotated[str, Located()]


@dataclass(frozen=True)
class Nested:
    """A nested config with a `_target_`: a public function or class of a module or package."""

    within: str  # a module or package, dotted
    kind: Literal["function", "class"]


@dataclass(frozen=True)
class Named:
    """A function that the config names in one word (config/named.py).

    The word is a public function of the module `within`, or the dotted path of the user's own code; a mapping has
    the word as its `_target_`, and keys. takes: the parameters that the caller may pass, by name; needs: those that it
    must have. words: these stand for themselves. better: whether its annotation has to be Higher or Lower. classes:
    whether a class may stand for it, whose instances are called.
    """

    within: str
    takes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    better: bool = False
    classes: bool = False


@dataclass(frozen=True)
class Better:
    """The better direction of a metric: "max" or "min"."""

    mode: Literal["max", "min"]


Higher = Annotated[Any, Better("max")]
Lower = Annotated[Any, Better("min")]
Loss = Annotated[Any, Named("dlrun.tasks.losses", ("out", "y", "reduction"), ("out", "y"), ("auto",), classes=True)]
Metric = Annotated[Any, Named("dlrun.tasks.metrics", ("y", "p", "predicted", "counts", "out"), better=True)]
Change = Annotated[Any, Named("", ("x", "context"), ("x",))]  # of images; the user's own only

# in quotes, because their modules import torch
ImageReader = Annotated["Callable[[], Arrays]", Nested("dlrun.data.readers.images", "function")]
FunctionReader = Annotated[Any, Nested("dlrun.data.readers.functions", "function")]
MaskReader = Annotated["Callable[[], Arrays | Pairs]", Nested("dlrun.data.readers.masks", "function")]
TableReader = Annotated["Callable[[], Arrays]", Nested("dlrun.data.readers.tables", "function")]
FrameReader = Annotated["Callable[[], Mapping[str, DataFrame]]", Nested("dlrun.data.readers.frames", "function")]
StreamSource = Annotated["Callable[[], Mapping[str, Any]]", Nested("dlrun.data.readers.streams", "function")]
TextReader = Annotated["Callable[[], Corpus]", Nested("dlrun.data.readers.texts", "function")]
Embedding = Annotated["Embed", Nested("dlrun.models.embedding", "class")]
Augmentation = Annotated["Augment", Nested("dlrun.data.images.augment", "class")]
