"""The position of a run in a stream of batches, and how a resumed run gets there again."""

import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from dlrun.errors import DataError, check_state, own_code
from dlrun.seeds import mix

END, BATCHES = object(), "batches (x, y)"  # the end of a pass

WORKERS = "exact unless its workers draw random numbers, which are not in it"
OTHER = (
    "the train loader yields other batches than before: from here on this is not the run that was stopped\n"
    "  expected a loader with state_dict, or one that depends only on the seeds of torch, NumPy and Python"
)


class StreamPosition(NamedTuple):
    """A position in a stream.

    passes: of the loader, begun before this one. batch: number of batches of this pass that were taken.
    """

    passes: int = 0
    batch: int = 0


class StreamReader:
    """Reads the training stream from its position, a component of the task: checkpoints hold it."""

    def __init__(self) -> None:
        self.position = StreamPosition()
        self.last: Any = None  # the newest batch
        self.restored: dict[str, Any] | None = None
        self.items: Iterator[Any] | None = None  # of this pass
        self.loader: Any = None
        self.epoch_batches: int | None = None

    def attach(self, loader: Iterable[Any], epoch_batches: int | None) -> None:
        """loader: of train. epoch_batches: None if an epoch is one pass."""
        self.loader, self.epoch_batches = loader, epoch_batches

    @property
    def has_state(self) -> bool:
        return all(callable(getattr(self.loader, name, None)) for name in ("state_dict", "load_state_dict"))

    @property
    def _has_workers(self) -> bool:
        return bool(getattr(self.loader, "num_workers", 0))

    def promise(self) -> str:
        """State how exact a resume in mid-epoch is, for the header."""
        if self.has_state and self._state() is not None:
            return (
                "resumes by its state_dict; " + WORKERS if self._has_workers else "resumes exactly, by its state_dict"
            )
        return "without state_dict: a resume reads it again up to its position, and reports whether that was exact"

    def batches(self, seed: int, epoch: int, first: int, steps: int) -> Iterator[Any]:
        """Yield the batches of an epoch from `first` on."""
        if first == 0 and (self.epoch_batches is None or self.items is None):
            self._begin(seed, StreamPosition(epoch if self.epoch_batches is None else self.position.passes))
        for _ in range(first, steps):
            item = self._next(seed)
            if item is END and self.epoch_batches is None and self.position.batch:
                return
            if item is END and self.epoch_batches is not None:  # its epoch continues with the next pass
                self._begin(seed, StreamPosition(self.position.passes + 1))
                item = self._next(seed)
            if item is END:
                raise DataError(
                    f"the train loader yields nothing in pass {self.position.passes + 1}\n"
                    "  expected batches (x, y) in every pass: a DataLoader or another iterable that can begin again"
                )
            yield item

    def find(self, seed: int) -> str:
        """Go to the restored position. Returns a note for the user on how that went, or ""."""
        saved, self.restored = self.restored, None
        if saved is None or not (saved["batch"] or saved["passes"]):
            return ""
        target = StreamPosition(saved["passes"], saved["batch"])
        if self.epoch_batches is None and not target.batch:
            return ""  # the next epoch begins a pass
        if saved["loader"] is not None and self.has_state:
            with own_code("load_state_dict of the train loader", "a loader that takes what its state_dict returned"):
                self.loader.load_state_dict(saved["loader"])
            self._begin(seed, StreamPosition(target.passes))
            self.position = target
            return f"the stream continues from its state_dict; {WORKERS}" if self._has_workers else ""
        for number in range(target.passes if self.epoch_batches is None else 0, target.passes + 1):
            self._begin(seed, StreamPosition(number))
            while (number < target.passes or self.position.batch < target.batch) and self._next(seed) is not END:
                pass
        is_same = self.position == target and (saved["crc"] is None or crc(self.last) == saved["crc"])
        return (
            f"the stream was read again up to batch {target.batch:,}; its last batch is the same" if is_same else OTHER
        )

    def _begin(self, seed: int, position: StreamPosition) -> None:
        """Begin a pass of the loader."""
        self.position = position
        seed_all(seed, position)
        for each in (self.loader, getattr(self.loader, "dataset", None), getattr(self.loader, "sampler", None)):
            if (set_epoch := getattr(each, "set_epoch", None)) is not None:
                with own_code("set_epoch of the train loader", "it to take the number of the pass"):
                    set_epoch(position.passes)
        self.items = items_of(self.loader, "train")

    def _next(self, seed: int) -> Any:
        """Return the next batch of the pass, END at its end."""
        following = StreamPosition(self.position.passes, self.position.batch + 1)
        seed_all(seed, following)
        item = next(cast("Iterator[Any]", self.items), END)
        if item is not END:
            self.position, self.last = following, item
        return item

    def _state(self) -> Any:
        """Return the loader's state; None if it has none, or one that a checkpoint cannot hold."""
        with own_code("state_dict of the train loader", "a dictionary of plain values and tensors"):
            state = self.loader.state_dict()
        return state if is_plain(state) else None

    def state_dict(self) -> dict[str, Any]:
        state = self._state() if self.has_state else None
        return {**self.position._asdict(), "loader": state, "crc": None if self.last is None else crc(self.last)}

    def load_state_dict(self, state: Any) -> None:
        """Raises ValueError unless `state` has the form that `state_dict` returns."""
        check_state(state, {"passes": int, "batch": int, "loader": object, "crc": int | None})
        if not (0 <= state["passes"] < 2**31 and 0 <= state["batch"] < 2**31):
            raise ValueError(f"passes: {state['passes']}, batch: {state['batch']}: out of range")
        self.restored, self.items = state, None


def seed_all(seed: int, position: StreamPosition) -> None:
    """Seed the global generators of torch (CPU), NumPy and Python by the position."""
    value = mix(seed, position.passes, position.batch, 7)
    torch.default_generator.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def items_of(loader: Iterable[Any], split: str) -> Iterator[Any]:
    """Begin a pass of a loader, now, and return what it yields. Raises DataError for what the loader raises."""
    with own_code(f"the {split} loader", BATCHES):
        return _taken(iter(loader), split)


def _taken(items: Iterator[Any], split: str) -> Iterator[Any]:
    while True:
        with own_code(f"the {split} loader", BATCHES):
            item = next(items, END)
        if item is END:
            return
        yield item


def crc(item: Any) -> int:
    """The CRC-32 of a batch."""
    value = 0
    for each in item:
        content = torch.as_tensor(each).detach().cpu().contiguous().reshape(-1)
        value = crc32(content.view(torch.uint8).numpy().data, value)  # as bytes: NumPy has no bfloat16
    return value


def is_plain(state: object) -> bool:
    """Whether a checkpoint can hold it: finite dense tensors, plain values, lists, tuples and dictionaries.

    Of these very types: a number of NumPy is a float, too, and a checkpoint that holds one is not read again.
    """
    if type(state) is dict:
        return all(type(key) in (str, int) and is_plain(value) for key, value in state.items())
    if type(state) in (list, tuple):
        return all(map(is_plain, cast("list[object]", state)))
    if type(state) is Tensor:
        is_dense = state.layout is torch.strided and not (state.is_quantized or state.is_complex())
        return is_dense and (not state.is_floating_point() or bool(state.isfinite().all()))
    return state is None or type(state) in (bool, int, float, str)
