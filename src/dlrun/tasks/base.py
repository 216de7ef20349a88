"""The base classes of tasks. A task owns networks and optimizers, makes its batches, and learns from one batch.

`Task` is what every task has; `SampleTask` learns from a data set of samples, `RLTask` (rl/base.py) plays environments.
"""

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch, Data, SampleData
from dlrun.models.options import options_of
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.system.device import Device
from dlrun.tasks.images import first_inputs
from dlrun.tasks.jobs import ONE, OneJob

Metrics = dict[str, Tensor]
DataT = TypeVar("DataT", bound=Data)
BatchT = TypeVar("BatchT")


class Component(Protocol):
    """A part of a task that changes while it learns, such as a network or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Task(Generic[DataT, BatchT]):
    """Base class of all tasks, for one kind of data and one of batches.

    A step must be a pure function of (components, seed, clock).

    net: the network that is saved as the best and that other runs can start from.
    update: the optimizer of the weights that are evaluated. A subclass makes it and adds it to `components`.
    components: by name, everything that changes during training. Each has state_dict and load_state_dict.
    per_rank: names of the components that differ between processes; all others are the same in all of them.
    scores: the metrics that `evaluate` returns, each with its direction, "max" or "min".
    goal: the score by which the best epoch is chosen, or None if there is no choice to make.
    header_lines: lines for the run's header, by title.
    jobs: whose samples a batch holds; a step that takes its means and random numbers from it runs for a stack, too.
    cycle: number of steps after which the kinds of steps repeat.
    compiled: names of the submodules that a step calls, for torch.compile ("" is the whole net); () if it cannot help.
    accepts: the inputs that `predict` accepts, the default first: "inputs" (as the data returns them), "images"
    (pixels in [0, 1]) or "latent" (codes (B, net.latent)); or "episodes" for a task that plays (`play`).
    num_samples: number of samples that it draws from codes; None if it draws none. has_metrics: whether task.metrics
    adds to its scores.
    """

    goal: str | None = None
    accepts: tuple[str, ...] = ("inputs",)
    per_rank: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ("",)
    update: Update
    num_samples: int | None = None
    has_metrics: bool = False

    def __init__(self, net: torch.nn.Module, device: Device) -> None:
        self.net, self.device = net, device
        self.scores: dict[str, str] = {}
        self.header_lines: dict[str, str] = {}
        self.components: dict[str, Component] = {"net": net}
        self.jobs: OneJob = ONE
        self.cycle = 1

    def record_steps(self) -> bool:
        """Run steps as CUDA graphs from now on. Returns False if this task's steps cannot be."""
        return False

    def try_net(self) -> None:
        """Raise UserError if a network of the user's own does not fit this task, as far as it is known without data."""

    def init_from_data(self, data: DataT) -> None:
        """Compute a new network's constant parts, such as whitening filters, from the train split (models/options.py).

        The network gets the first inputs of an epoch whose order does not depend on the run's seed.
        """

    def prepare(self, data: DataT) -> None:
        """Look at the train split, which has been read, before a run starts or resumes."""

    def extra_state(self) -> dict[str, Any]:
        """Return the values besides the weights that predictions need, such as a threshold. Checkpoints hold them."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what `extra_state` returned. Raises ValueError if it has another form."""

    def steps(self, data: DataT) -> int:
        """Number of batches in an epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define steps()")

    def epoch_samples(self, data: DataT) -> int | None:
        """Number of samples (frames) after which an epoch ends; None if it ends after `steps` batches."""
        return None

    def batches(self, data: DataT, clock: Clock) -> Iterator[BatchT]:
        """Iterate over the batches of the clock's epoch, starting at the clock's position."""
        raise NotImplementedError(f"{type(self).__name__} must define batches()")

    def samples(self, batch: BatchT) -> int:
        """Number of samples in a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define samples()")

    def step(self, batch: BatchT, clock: Clock) -> Metrics:
        """Learn from one batch. Return metrics as detached tensors: a mean over the batch or a value for each sample.

        The result is empty if the step was skipped (trainer.on_nan=skip).
        """
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        """Turn the means of the metrics of several steps (see train/meters.py) into the metrics that are logged."""
        return means

    def evaluate(self, data: DataT, split: str) -> dict[str, float]:
        """Return the metrics that `scores` names, over a whole split."""
        raise NotImplementedError(f"{type(self).__name__} must define evaluate()")

    @property
    def threshold(self) -> float | None:
        """The least probability at which a sample is assigned to the second of two classes.

        None if there are not two classes.
        """
        return None

    def evaluated(self) -> torch.nn.Module:
        """The network that is evaluated, in evaluation mode: the averaged one (trainer.ema) if there is one."""
        return self.update.ema if self.update.ema is not None else self.update.net.eval()

    def named_updates(self) -> dict[str, Update]:
        """The components that are optimizers."""
        return {name: each for name, each in self.components.items() if isinstance(each, Update)}

    def watch_gradients(self) -> None:
        """Record the norm of each parameter's gradient from now on (`gradient_norms`)."""
        for name, update in self.named_updates().items():
            update.watch(name.removesuffix("update"))

    def gradient_norms(self) -> dict[str, Tensor]:
        """The norms of the last step's gradients, before and after clipping, by grad/<name> and clipped/<name>."""
        return {name: norm for update in self.named_updates().values() for name, norm in update.norms.items()}

    def best_state(self) -> dict[str, Tensor]:
        """The state of the whole net, with averaged weights where there are any."""
        state = self.net.state_dict()
        for update in self.named_updates().values():
            if update.ema is not None:
                name = next(name for name, child in self.net.named_modules() if child is update.net)
                state |= {f"{name}.{key}" if name else key: v for key, v in update.ema.state_dict().items()}
        return state

    def load_best_state(self, state: dict[str, Tensor]) -> None:
        """Load what `best_state` returned into the net and its averaged copies."""
        self.net.load_state_dict(state)
        for update in self.named_updates().values():
            if update.ema is not None:
                update.ema.load_state_dict(update.net.state_dict())

    def report(self, data: DataT) -> Report:
        """Results on the test split at the end of a run."""
        return Report()

    def preview(self, data: DataT) -> dict[str, Tensor]:
        """Images that are written after each epoch, by name: (C, H, W) in [0, 1]."""
        return {}

    def predict(self, batch: Tensor) -> Tensor:
        """Return the evaluated network's outputs for a batch of one of the kinds in `accepts`."""
        raise NotImplementedError(f"{type(self).__name__} does not predict")

    def explain(self, x: Tensor) -> dict[str, Any]:
        """Return figures, by name, that explain the prediction for one input (1, *shape); {} if there are none."""
        return {}

    def decide(self, p: Tensor) -> Tensor:
        """Turn a classifier's probabilities (B, classes) into classes (B,)."""
        return p.argmax(1)

    def play(self, data: DataT, episodes: int, seed: int) -> list[tuple[float, int]]:
        """Play episodes from starts drawn by the seed; give the return and the length of each."""
        raise NotImplementedError(f"{type(self).__name__} does not play")


class SampleTask(Task[SampleData, Batch]):
    """Base class of tasks that learn from a data set of samples: an epoch is all train samples once."""

    def init_from_data(self, data: SampleData) -> None:
        options = options_of(self.net)
        if options.init_from_data and options.num_init_samples:
            options.init_from_data(first_inputs(data.batches("train"), options.num_init_samples))
            for update in self.named_updates().values():
                update.save_buffers()

    def steps(self, data: SampleData) -> int:
        return -(-data.size("train") // data.batch_size)

    def batches(self, data: SampleData, clock: Clock) -> Iterator[Batch]:
        batches, dist = data.batches("train", clock.seed, clock.epoch, clock.batch), self.device.dist
        return batches if dist.size == 1 else dist.shards(batches)

    def samples(self, batch: Batch) -> int:
        return len(batch[0]) // self.jobs.num
