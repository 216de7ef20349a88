"""A job of a stack: its run, and its part of the stack's checkpoint."""

import json
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dlrun.errors import CheckpointError, check_state
from dlrun.sweep.population import Successor
from dlrun.sweep.rows import is_number
from dlrun.train.session import Session
from dlrun.train.state import Training


@dataclass
class StackedJob:
    """A job of the stack.

    values: the present hyper-parameters of a member of a population, by key. source: the member from whose weights it
    continued in this epoch. copies: how often it did.
    """

    number: int
    session: Session
    training: Training
    values: dict[str, float] = field(default_factory=dict)
    source: int | None = None
    copies: int = 0

    @property
    def settings(self) -> tuple[str, str, str]:
        """Texts that are equal for jobs with equal optimizers but for the rate, with equal losses, and with equal rates
        and schedules.
        """
        config = self.session.config
        losses = [value for key, value in config["task"].items() if key not in ("l1", "l2", "class_weights")]
        optimizer = dict(config["optimizer"])
        rates = [optimizer.pop("lr"), config["schedule"]]
        return json.dumps(optimizer), json.dumps(losses), json.dumps(rates)

    def take_over(self, components: dict[str, Any], successor: Successor) -> None:
        """Continue from the state of another job, with other hyper-parameters; the run's folder stays its own."""
        self.values, self.source, self.copies = successor.values, successor.source, self.copies + 1
        old = self.session
        self.session = Session(with_values(old.config, self.values), old.names, old.chosen, like=old)
        for name, component in self.session.task.components.items():
            component.load_state_dict(components[name])
        self.training.task, self.training.trainer = self.session.task, self.session.trainer
        words = " ".join(f"{key}={value}" for key, value in self.values.items())
        self.training.run.print(f"continuing from the weights of job {successor.source} with {words}")

    def notes(self) -> dict[str, float]:
        """Return the population's entries for the row of the epoch that is done; `source` counts once."""
        source, self.source = self.source, None
        row: dict[str, float] = {f"pbt/{key}": value for key, value in self.values.items()}
        row |= {"pbt/copies": self.copies} if row else {}
        return row if source is None else row | {"pbt/from": source}

    def saved(self, state: dict) -> dict:
        """The part of a checkpoint, with a snapshot of the run's state."""
        parts = {"state": self._own(state), "best": self._own(self.training.best_state)}
        return parts | {"values": dict(self.values), "source": self.source, "copies": self.copies}

    def _own(self, state: dict | None) -> dict | None:
        """A snapshot without the entries about the data, which all jobs share."""
        return None if state is None else {k: v for k, v in state.items() if k not in self.training.data_state}

    def restore(self, saved: Any) -> None:
        """Load what `saved` returned. Raises as Training.load does."""
        part, data = job_state(saved, self.number, self.values), self.training.data_state
        self.values, self.source, self.copies = part.values, part.source, part.copies
        self.training.load(part.state | data)
        if part.best is not None:
            self.training.best_state, self.training.best_is_new = part.best | data, True


class JobState(NamedTuple):
    """A job's part of a checkpoint; see StackedJob."""

    state: dict
    best: dict | None
    values: dict[str, float]
    source: int | None
    copies: int


def job_state(saved: Any, number: int, keys: Collection[str] = ()) -> JobState:
    """Read a job's part of a checkpoint. keys: of its `values`. Raises CheckpointError if no stack wrote it."""
    kinds = {"state": dict, "best": dict | None, "values": dict, "source": int | None, "copies": int}
    try:
        check_state(saved, kinds)
        if saved["values"].keys() != set(keys) or not all(map(is_number, saved["values"].values())):
            raise ValueError("other values than those of the population")
    except ValueError:
        raise CheckpointError(
            f"the checkpoint of the stack of job {number} is whole, but its content is not that of a stack\n"
            "  expected the file as dl-run wrote it: start the sweep again"
        ) from None
    return JobState(**saved)


def with_values(config: dict, values: dict[str, float]) -> dict:
    """A config with other values of some keys, by dotted path."""
    config = deepcopy(config)
    for path, value in values.items():
        *sections, key = path.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[key] = value
    return config
