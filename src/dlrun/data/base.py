"""The protocol of a data set, which tasks, the session and the commands rely on, and the arrays that a reader returns.

A data set of your own is any class with these members. The beginning of a small one:

    class Ramp:
        def __init__(self, *, spec: Table, batch_size: Count) -> None:
            self.spec, self.batch_size, self.eval_batch_size = spec, batch_size, 1000

        def load(self, device, channels_last=False):
            x = torch.linspace(0, 1, 100, device=device)[:, None]
            rows = {"train": slice(0, 80), "val": slice(80, 90), "test": slice(90, 100)}
            self.splits = {split: (x[indices], 2 * x[indices]) for split, indices in rows.items()}

        def batches(self, split, seed=0, epoch=0, first=0):
            x, y = self.splits[split]
            order = torch.arange(len(x))
            if split == "train":
                order = torch.randperm(len(x), generator=generator("cpu", seed, epoch))[first * self.batch_size :]
            for rows in order.split(self.batch_size):
                yield x[rows], y[rows]
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

from dlrun.seeds import mix
from dlrun.spec import Env, SampleSpec, Spec

Batch = tuple[Tensor, Tensor]  # inputs, targets
Video = tuple[list[np.ndarray], float]  # frames (H, W, 3), uint8, and frames per second


class Data(Protocol):
    """The members of every data set. Nothing is read before `load`."""

    @property
    def spec(self) -> Spec:
        """The description of a sample or of an environment, from which networks are built."""

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it does not match the spec."""

    def size(self, split: str) -> int:
        """Return the number of samples of a split; 0 for the val and test splits of environments."""

    def fitted(self) -> dict[str, Any]:
        """Return the facts learned from the train split that new inputs need (words, means). Checkpoints hold them."""

    def restore(self, fitted: dict[str, Any], device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` from `fitted` alone, without reading any data."""

    def digest(self) -> str:
        """Return a hash of the data. A run is resumed only if it is unchanged."""

    def describe(self) -> str:
        """Describe where the data is stored and how large it is, for the run's header."""


class SampleData(Data, Protocol):
    """A data set of samples with the splits train, val and test, which come in batches.

    batch_size: samples of a training batch. eval_batch_size: samples of a batch of val or test.

    Optional members, which the rest of the package looks for:

    - `header_lines`: further lines of the header, by title. `report()`: the data's own results at the end of a run, as
      `Task.report` returns them. `baselines(split)`: metrics of simple predictions, by name.
    - `targets(split)`: all targets; `origins(split)`: where each sample is in the stored data; `files(split)`: the name
      of each sample's file. `folds`: number of folds of a cross-validation, 0 for none.
      `sampler`: "balanced" if an epoch has as many samples of each class (orders.py), else "none".
    - `sums()`: checksums of the arrays, compared to 1e-6 on resuming. `position`: a component of the task that reads
      a stream from its position. `tested`: "val" if a stream has no test split and val is tested.
      `load_like(fitted, device)`: read all samples as the test split of another run's data.
    - `scaling`: mean and std by which columns are standardised. `mean`, `std`: those of pixels; `pixels`: augmentation
      and normalisation. Of images from files: `stored` (shape), `fit` (how they are cropped), `levels` (range of
      values), `form` (how a list of them is read).
    """

    batch_size: int
    eval_batch_size: int

    @property
    def spec(self) -> SampleSpec:
        """The description of a sample (shape, classes, targets), from which networks are built."""

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield (inputs, targets) of a split. Train: in an order drawn from (seed, epoch), from batch `first` on."""

    def encode(self, stored: Any, /) -> Tensor:
        """Turn samples, as they are stored or typed, into the network's input: normalised, without augmentation."""


def has_samples(data: Data) -> TypeGuard[SampleData]:
    """Whether it is a data set of samples; otherwise it is an environment."""
    return not isinstance(data.spec, Env)


def pixel_statistics(data: Data) -> tuple[list[float], list[float]] | None:
    """Return the mean and std that normalise pixels in [0, 1], one number or one per channel; None without."""
    mean, std = getattr(data, "mean", None), getattr(data, "std", None)
    return None if mean is None or std is None else (mean, std)


class VectorEnv(Protocol):
    """N environments that are stepped together; each one is reset by the step after its end."""

    def reset(self, seed: int) -> np.ndarray:
        """Start all of them, by the seed. Returns observations (N, features)."""

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns observations, rewards, terminated, truncated, and the observations before any reset."""

    def close(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class EnvData(Data, Protocol):
    """The data of a reinforcement learning task: environments (data/envs/envs.py)."""

    num_envs: int  # played together in training
    epoch_frames: int  # of all environments together

    @property
    def spec(self) -> Env:
        """The description of observations and actions."""

    def make(self, num: int) -> VectorEnv:
        """Make `num` environments that are stepped together."""

    def transitions(self) -> tuple[list, tuple[int, int] | None]:
        """Gymnasium's P, [state][action] -> [(probability, next state, reward, ends)], and the grid's rows and columns.

        Raises UserError if the environment does not provide them.
        """

    def record_video(self, act: Callable[[np.ndarray], np.ndarray], seed: int) -> Video | str | None:
        """A video of an episode; a message if it cannot be drawn, None if it is not wanted."""


@dataclass(frozen=True)
class AugmentContext:
    """The inputs of random changes to a chunk of train samples.

    random: a generator. seed, epoch: the run's. rows: (B,), the samples' positions in the data.
    """

    random: torch.Generator
    seed: int
    epoch: int
    rows: Tensor

    def alternating(self) -> Tensor:
        """A coin for each sample that alternates from epoch to epoch: (B,) bool. The seed and the row set its start."""
        hashed = (self.rows + mix(self.seed) % 2**31) * 0x9E3779B1 >> 20  # multiplicative hashing, within 63 bits
        return (hashed + self.epoch) % 2 == 1


class Arrays(NamedTuple):
    """The train and test samples that a reader returns.

    Images are uint8 (N, C, H, W), rows float32 (N, features); labels int64 (N,), targets float32 (N, targets).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
