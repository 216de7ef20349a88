"""Where a run is. All that changes over time (orders, rates, turns) is a function of it."""

from dataclasses import asdict, dataclass

from dlrun.errors import check_state


@dataclass
class Clock:
    """seed: the run's. epochs, steps_per_epoch, max_steps: what the run will be; the rest: what is done.

    epoch_samples: what ends an epoch, where that is an amount of samples (frames): the run's share done and its curves
    then go by samples, and steps_per_epoch is only the most that there can be.

    batch: position in the epoch. samples: seen so far (frames, where an environment gives them). seconds: spent
    training, over all sessions.
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
        planned = self.epochs * self.steps_per_epoch
        return min(planned, self.max_steps) if self.max_steps else planned

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, in [0, 1]."""
        if self.epoch_samples:
            limited = self.step / self.max_steps if self.max_steps else 0.0
            return min(1.0, max(limited, self.samples / (self.epochs * self.epoch_samples)))
        return min(1.0, self.step / self.total_steps) if self.total_steps else 1.0

    @property
    def epochs_done(self) -> float:
        """Epochs, with the share of the one under way."""
        if self.epoch_samples:
            return min(self.epoch + 1.0, max(float(self.epoch), self.samples / self.epoch_samples))
        return self.epoch + self.batch / self.steps_per_epoch

    @property
    def global_step(self) -> int:
        """What curves are drawn over: frames where an epoch is so many of them, else steps."""
        return self.samples if self.epoch_samples else self.step

    @property
    def position(self) -> tuple[int, int, int]:
        return self.step, self.epoch, self.batch

    def tick(self, samples: int) -> None:
        self.step += 1
        self.batch += 1
        self.samples += samples

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0

    def state_dict(self) -> dict:
        return {k: v for k, v in asdict(self).items() if k in ("seed", "step", "epoch", "batch", "samples", "seconds")}

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError unless it is what `state_dict` gives: nothing of the plan is overwritten."""
        check_state(state, dict.fromkeys(("seed", "step", "epoch", "batch", "samples"), int) | {"seconds": float})
        if not all(0 <= value < 2**63 for value in state.values()) or state["seed"] != self.seed:
            raise ValueError(f"expected a clock's numbers to be at least 0, and seed={self.seed}, found {state}")
        for key, value in state.items():
            setattr(self, key, value)
