"""The clock: how far a run has come.

Everything that changes over time (orders of samples, learning rates, a generator's turn) is a function of the clock.
"""

from dataclasses import dataclass

from dlrun.errors import check_state


@dataclass
class Clock:
    """The plan of a run, and its position in the plan.

    The plan. seed: the run's. epochs, steps_per_epoch, max_steps: its length. epoch_samples: number of samples (frames)
    that end an epoch, None if its steps do; progress and curves then follow samples, and steps_per_epoch is an upper
    bound.

    The position. step, epoch: how many are done. batch: number of batches done in this epoch. samples: how many were
    seen (frames of an environment). seconds: time spent training, over all sessions.
    """

    seed: int
    epochs: int
    steps_per_epoch: int
    max_steps: int | None = None
    epoch_samples: int | None = None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    samples: int = 0
    seconds: float = 0.0

    @property
    def total_steps(self) -> int:
        """Steps of the whole run (an upper bound with epoch_samples)."""
        planned = self.epochs * self.steps_per_epoch
        return min(planned, self.max_steps) if self.max_steps else planned

    @property
    def fraction(self) -> float:
        """The share of the whole run that is done, in [0, 1]."""
        if self.epoch_samples:
            limited = self.step / self.max_steps if self.max_steps else 0.0
            return min(1.0, max(limited, self.samples / (self.epochs * self.epoch_samples)))
        return min(1.0, self.step / self.total_steps) if self.total_steps else 1.0

    @property
    def epochs_done(self) -> float:
        """Number of epochs done, including the done share of the present one."""
        if self.epoch_samples:
            return min(self.epoch + 1.0, max(float(self.epoch), self.samples / self.epoch_samples))
        return self.epoch + self.batch / self.steps_per_epoch

    @property
    def is_epoch_done(self) -> bool:
        """Whether the present epoch has no batches left."""
        if self.epoch_samples:
            return self.batch > 0 and self.samples >= (self.epoch + 1) * self.epoch_samples
        return self.batch >= self.steps_per_epoch

    @property
    def global_step(self) -> int:
        """The x-axis of curves: samples if epochs are amounts of samples (frames), else steps."""
        return self.samples if self.epoch_samples else self.step

    @property
    def position(self) -> tuple[int, int, int]:
        """(step, epoch, batch)"""
        return self.step, self.epoch, self.batch

    def tick(self, samples: int) -> None:
        """Count a step and its samples."""
        self.step += 1
        self.batch += 1
        self.samples += samples

    def next_epoch(self) -> None:
        """Count an epoch."""
        self.epoch += 1
        self.batch = 0

    def state_dict(self) -> dict[str, int | float]:
        """The seed and the position; the plan comes from the config."""
        return {name: getattr(self, name) for name in ("seed", "step", "epoch", "batch", "samples", "seconds")}

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        """Restore the position. Raises ValueError unless `state` has the form of `state_dict` and the same seed."""
        check_state(state, dict.fromkeys(("seed", "step", "epoch", "batch", "samples"), int) | {"seconds": float})
        if not all(0 <= value < 2**63 for value in state.values()) or state["seed"] != self.seed:
            raise ValueError(f"expected numbers of at least 0, and seed={self.seed}, found {state}")
        for key, value in state.items():
            setattr(self, key, value)
