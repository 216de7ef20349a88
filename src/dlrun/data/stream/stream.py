"""Batches from loaders of your own: torch DataLoaders, torchdata's StatefulDataLoader, WebDataset, any iterable.

A loader has no order that is a function of (seed, epoch), so a run that is resumed in mid-epoch must bring it back
to its position (position.py). If the loader has `state_dict` and `load_state_dict`, its state is in the checkpoint,
without the random generators of its worker processes. Else the batches up to that position are read again. That is
exact if the loader is a function of the global random generators of torch, NumPy and Python, which are seeded before
each batch, or has `set_epoch`. The last batch read again is compared with the one before the stop, so the run reports
whether the resume was exact.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, cast

import torch
from torch import Tensor

from dlrun.data.base import Batch
from dlrun.data.stream.batch import AXES, as_batch
from dlrun.data.stream.position import END, StreamPosition, StreamReader, items_of, seed_all
from dlrun.errors import DataError, UserError, counted, own_code
from dlrun.spec import Classes, Image, Series, Table, Tokens
from dlrun.types import Count, Size, StreamSource

Loader = Iterable[Any]
NOTHING = (
    "data.source: no loaders\n"
    "  expected a function of your own that returns them: data.source='{_target_: mynets.data.loaders}'"
)


class Stream:
    """A data set whose train, val and test loaders yield (x, y) in batches.

    source: returns {"train": ..., "val": ..., "test": ...}; without test, val is tested. kind: of samples; auto: by the
    shape of x. classes: of integer labels; null: y is real. vocab: of tokens. epoch_batches: train batches of an epoch;
    null: an epoch is one pass of the loader, which must have a length. Normalisation belongs to the loaders.
    Batches: x float32, tokens int32; y int64 (B,) or float32 (B, targets).
    """

    def __init__(
        self,
        *,
        source: StreamSource | None,
        kind: Literal["auto", "images", "rows", "series", "tokens"],
        classes: Classes | None,
        vocab: Size | None,
        labels: list[str],
        epoch_batches: Count | None,
    ) -> None:
        if kind == "tokens" and not vocab:
            raise UserError("data.kind=tokens: data.vocab is null\n  expected the number of token ids, such as 10000")
        if labels and len(labels) != classes:
            raise UserError(
                f"data.labels has {counted(len(labels), 'name')}, and data.classes={classes}\n"
                "  expected a name for each class"
            )
        self.source = cast("Callable[[], Mapping[str, Loader]] | None", source)
        self.kind, self.classes, self.vocab, self.labels = kind, classes, vocab, tuple(labels)
        self.num_targets, self.epoch_batches = 0, epoch_batches
        self.tested = "test"
        self.loaders: dict[str, Loader] = {}
        self.shape: tuple[int, ...] = ()
        self.position = StreamReader()
        self.sizes: dict[str, int] = {}

    @property
    def spec(self) -> Image | Table | Series | Tokens:
        """The spec that the config and the first batch of val give."""
        if not self.shape:
            self._open()
        kind = self.kind if self.kind != "auto" else next(k for k, n in AXES.items() if n == len(self.shape))
        if kind == "images":
            return Image(cast("tuple[int, int, int]", self.shape), self.classes, self.labels)
        if kind == "tokens":
            return Tokens(self.shape[0], self.vocab or 0, self.classes or 0, self.labels)
        if kind == "series":
            return Series(
                self.shape[0], self.shape[1], classes=self.classes, targets=self.num_targets, labels=self.labels
            )
        return Table(self.shape[0], self.classes, self.num_targets, labels=self.labels)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Get the loaders. Raises DataError if they are not what the config says."""
        self.restore({}, device)
        if not self.loaders:
            self._open()
        train = self.loaders["train"]
        length = self.epoch_batches or _length(train)
        if not length:
            raise DataError(
                f"the train loader ({type(train).__name__}) has no length\n"
                "  expected data.epoch_batches=<number of batches of an epoch>"
            )
        self.steps = length
        for split in ("val", "test"):
            self.sizes[split] = sum(len(x) for x, _ in self.batches(split))
        self.position.attach(train, self.epoch_batches)

    def _open(self) -> None:
        if self.source is None:
            raise DataError(NOTHING)
        with own_code("data.source", "a dictionary with the loaders train and val"):
            loaders = self.source()
        if not isinstance(loaders, Mapping) or not {"train", "val"} <= loaders.keys():
            lacks = [
                f"{split!r}" for split in ("train", "val") if isinstance(loaders, Mapping) and split not in loaders
            ]
            raise DataError(
                f"data.source returned a {type(loaders).__name__}{' without ' * bool(lacks)}{' and '.join(lacks)}\n"
                "  expected a dictionary with the loaders train and val, and test if there is one"
            )
        if wrong := next((name for name, loader in loaders.items() if not isinstance(loader, Iterable)), None):
            raise DataError(
                f"data.source: {wrong} is a {type(loaders[wrong]).__name__}\n"
                "  expected a DataLoader or another iterable"
            )
        self.loaders, self.tested = {"test": loaders["val"], **loaders}, "test" if "test" in loaders else "val"
        for split in ("val", "test"):
            if isinstance(self.loaders[split], Iterator):
                raise DataError(
                    f"the {split} loader is a {type(self.loaders[split]).__name__}, which can be read only once\n"
                    "  expected a DataLoader, a list, or another iterable that begins again"
                )
        if (first := next(items_of(self.loaders["val"], "val"), END)) is END:
            raise DataError("the val loader yields nothing\n  expected batches (x, y)")
        x, y = self._checked(first, "val")
        self.shape, self.eval_size = tuple(x.shape[1:]), len(x)
        if not self.classes:
            self.num_targets = y.shape[1]
        train = self.loaders["train"]
        size = getattr(train, "batch_size", None)
        if isinstance(train, Sequence) and len(train):  # a list, which can be looked at without beginning a pass
            size = len(self._checked(train[0], "train")[0])
        self.train_size = size if isinstance(size, int) and size > 0 else self.eval_size

    @property
    def batch_size(self) -> int:
        """Samples of a training batch, as the loader states it; of a list of batches those of its first."""
        return self.train_size if self.loaders else self.eval_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        raise UserError(
            "data=stream: its loaders make the batches\n"
            "  expected trainer.processes=1, and the batch size in the function that makes the loaders"
        )

    @property
    def eval_batch_size(self) -> int:
        return self.eval_size

    def size(self, split: str) -> int:
        """Return the number of samples; of train, as many as its batches hold at most."""
        return self.steps * self.batch_size if split == "train" else self.sizes[split]

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield (inputs, targets). Train: an epoch from batch `first` on."""
        if split == "train":
            for item in self.position.batches(seed, epoch, first, self.steps):
                yield self._on_device(item, split)
            return
        seed_all(0, StreamPosition())  # the same samples each time, also right after a resume
        for item in items_of(self.loaders[split], split):
            yield self._on_device(item, split)

    def _checked(self, item: Any, split: str) -> Batch:
        return as_batch(item, f"the {split} loader", self.kind, self.classes, self.vocab)

    def _on_device(self, item: Any, split: str) -> Batch:
        x, y = self._checked(item, split)
        if tuple(x.shape[1:]) != self.shape:
            raise DataError(
                f"the {split} loader yields x of shape {tuple(x.shape)}\n"
                f"  expected (batch, {', '.join(map(str, self.shape))})"
            )
        if not self.classes and y.shape[1] != self.num_targets:
            raise DataError(
                f"the {split} loader yields y with {counted(y.shape[1], 'target')}\n  expected {self.num_targets}"
            )
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def encode(self, stored: Any) -> Tensor:
        """Return samples on the device: normalisation belongs to the loaders."""
        return torch.as_tensor(
            stored, dtype=torch.int32 if self.kind == "tokens" else torch.float32, device=self.device
        )

    def fitted(self) -> dict[str, Any]:
        """Return the facts that the first batch showed."""
        return {"shape": list(self.shape), "targets": self.num_targets, "batch": self.eval_size}

    def restore(self, fitted: dict[str, Any], device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.device = device
        if fitted:
            self.shape, self.num_targets, self.eval_size = tuple(fitted["shape"]), fitted["targets"], fitted["batch"]

    def digest(self) -> str:
        """Return a hash of the spec: the content of a stream is not known before it is read."""
        return sha256(str(self.spec).encode()).hexdigest()

    def describe(self) -> str:
        train = self.loaders["train"]
        an_epoch = f"{self.steps:,} batches an epoch" + ("" if self.epoch_batches else ", one pass")
        learns = counted(self.classes, "class") if self.classes else counted(self.num_targets, "real target")
        return f"{type(train).__name__}, {an_epoch}, {learns}; {self.position.promise()}"


def _length(loader: object) -> int:
    with own_code("len() of the train loader", "its number of batches"):
        try:
            return len(cast(Any, loader))
        except (TypeError, NotImplementedError):
            return 0
