"""The state of a training run: what a checkpoint holds, how it is saved and restored, and when the run is over."""

import time
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.errors import CheckpointError, DataError, Diverged, UserError, check_state
from dlrun.output.checkpoint import snapshot
from dlrun.output.console import number
from dlrun.output.run_folder import NullFolder, RunFolder
from dlrun.overrides import pasteable
from dlrun.tasks.base import Task
from dlrun.train.best import Best, make_best
from dlrun.train.data_state import is_same_data
from dlrun.train.limits import limits_reached
from dlrun.train.meters import Means
from dlrun.train.trainer import Trainer

# raised by load_state_dict and by look-ups if a state is not the one that the config's objects wrote
STATE_ERRORS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)


class Training:
    """The mutable state that `fit` (train/engine.py) works on, and the rules for saving it and for stopping.

    data_state: what each checkpoint holds of the data; see train/data_state.py.
    """

    def __init__(
        self, task: Task, trainer: Trainer, run: RunFolder | NullFolder, clock: Clock, data_state: dict
    ) -> None:
        self.task, self.trainer, self.run, self.clock, self.data_state = task, trainer, run, clock, data_state
        self.dist = task.device.dist
        self.means, self.best = Means(), make_best(task, trainer)
        self.masks = {name for name, buffer in task.net.named_buffers() if not all_finite(buffer)}  # of attention
        self.best_state: dict | None = None
        self.best_is_new = self.has_exploded = False
        self.saved_at = self.session_start = time.monotonic()
        self.saved_position: tuple[int, ...] | None = None  # the clock's position in the newest checkpoint
        self.seconds_before = clock.seconds
        self.kept_since = 0  # the epoch after which the present trainer.keep and keep_every apply

    def save(self) -> None:
        """Checkpoint the present state; only rank 0 writes.

        Snapshots are taken before this returns; a background thread writes the file. If the task has components
        that differ between ranks (`task.per_rank`), all ranks must call this at the same time. Raises Diverged if a
        weight is not finite.
        """
        if self.saved_position == self.clock.position:
            return
        self.saved_at, self.saved_position = time.monotonic(), self.clock.position
        per_rank = self.task.per_rank if self.dist.size > 1 else ()
        states = {name: self.task.components[name].state_dict() for name in per_rank}
        other_ranks = self.dist.gather_objects(snapshot(states)) if per_rank else []
        if self.dist.rank:
            return
        last = self.snapshot(other_ranks)
        self.run.sync()
        self.run.checkpoints.write(last, self.best_state if self.best_is_new else None)
        self.best_is_new = False

    def snapshot(self, other_ranks: list) -> dict:
        """The content of a checkpoint of the present state. Raises Diverged if a weight is not finite.

        Mind two names, which the files of older runs have too: `data` holds `Data.fitted()`, and `fitted` holds
        `Task.extra_state()`.
        """
        self.tick_seconds()
        state: dict[str, Any] = {
            "components": {name: component.state_dict() for name, component in self.task.components.items()},
            "clock": self.clock.state_dict(),
            "means": self.means.state_dict(),
            "best": self.best.state_dict() if self.best else None,
            "fitted": self.task.extra_state(),
            "rows": self.run.num_rows,
            "run": self.run.id,
            "threads": torch.get_num_threads(),
            "other_ranks": other_ranks,
            "keep": {"rule": self._keep_rule(), "since": self.kept_since},
        }
        last = snapshot(state) | self.data_state
        last["state_dict"] = last["components"].get("net")
        if not all_finite(last["components"], self.masks):
            raise Diverged(
                f"the weights are no longer finite in epoch {self.clock.epoch + 1}, step {self.clock.step}\n"
                "  expected finite weights; the previous checkpoint is kept\n"
                "  try a lower optimizer.lr or trainer.clip_global_norm=1"
            )
        return last

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within the epoch, by steps or by minutes."""
        every = self.trainer.checkpoint_every_steps
        return bool(every and self.clock.step % every == 0) or self.is_old(60 * self.trainer.checkpoint_every_minutes)

    def is_old(self, seconds: float) -> bool:
        """Whether the newest checkpoint is older than that. Ranks agree on the answer if all take part in saving."""
        is_old = time.monotonic() - self.saved_at >= seconds
        return bool(self.dist.all_reduce_max(is_old)) if self.task.per_rank else is_old

    def tick_seconds(self) -> None:
        """Set the clock's seconds of training: earlier sessions plus this one."""
        self.clock.seconds = self.seconds_before + time.monotonic() - self.session_start

    def restore(self, state: dict) -> str:
        """Restore everything to the moment when `state` was saved. Writes nothing.

        Returns a note for the user if the best weights are lost, else "". Raises DataError if the data has changed,
        CheckpointError if the state does not fit the config, UserError if trainer.epochs is below the epoch reached.
        """
        self.load(state)
        return self._check_best(self.best) if self.best and state["best"] else ""

    def load(self, state: dict) -> None:
        """Load what `snapshot` returned. Raises as `restore` does."""
        if not isinstance(state.get("components"), dict):
            raise self._damaged(ValueError("it holds no components"))
        if not is_same_data(state, self.data_state):
            raise DataError(
                f"{self.run.folder}: the data has changed: its splits have other samples, statistics, words or "
                "classes\n  expected the data that the run was started with (DL_RUN_DATA_DIR and data_dir locate it)\n"
                f"  to train on other data, start a new run from its weights: {pasteable('init', self.run.folder)}"
            )
        self._load_components(state)
        try:
            self._load_progress(state)
        except STATE_ERRORS as error:
            raise self._damaged(error) from None
        if self.clock.batch and self.clock.epoch >= self.trainer.epochs:
            raise UserError(
                f"trainer.epochs={self.trainer.epochs}: the run is already in epoch {self.clock.epoch + 1}\n"
                f"  expected trainer.epochs={self.clock.epoch + 1} or more"
            )
        self.seconds_before = self.clock.seconds
        self.run.id = state.get("run") or self.run.id
        self.run.read_back(state["rows"])

    def _load_components(self, state: dict) -> None:
        """Load the components; on rank 1 and up, their own state of the components that differ by rank."""
        if state["components"].keys() != self.task.components.keys():
            names = sorted(state["components"]), sorted(self.task.components)
            raise CheckpointError(f"the checkpoint holds {names[0]}, expected {names[1]}")
        for name, component in self.task.components.items():
            try:
                is_per_rank = self.dist.rank and name in self.task.per_rank
                states = state["other_ranks"][self.dist.rank - 1] if is_per_rank else state["components"]
                component.load_state_dict(states[name])
            except STATE_ERRORS as error:
                raise CheckpointError(
                    f"the checkpoint's {name!r} does not fit the config in {self.run.folder / '.hydra'}: {error}\n"
                    "  expected the config that the run was started with\n"
                    f"  for another config, start a new run from its weights: {pasteable('init', self.run.folder)}"
                ) from None

    def _load_progress(self, state: dict) -> None:
        """Load the clock, the epoch's means and the best epoch. Raises one of STATE_ERRORS if they are damaged."""
        self.clock.load_state_dict(state["clock"])
        device = self.task.device.torch_device
        pending = [[{k: v.to(device) for k, v in metrics.items()}, n] for metrics, n in state["means"]["pending"]]
        self.means.load_state_dict({**state["means"], "pending": pending})
        if self.best and state["best"]:
            self.best.load_state_dict(state["best"])
        self.task.load_extra_state(state.get("fitted", {}))
        keep = state.get("keep", {"rule": self._keep_rule(), "since": 0})
        check_state(keep, {"rule": list, "since": int})
        self.kept_since = keep["since"] if keep["rule"] == self._keep_rule() else self.clock.epoch
        counts = {name: state[name] for name in ("rows", "threads")}
        check_state(counts, dict.fromkeys(counts, int))
        if state["rows"] < 0 or not 1 <= state["threads"] <= 1024:
            raise ValueError(f"rows: {state['rows']}, threads: {state['threads']}: out of range")

    def _keep_rule(self) -> list[str | int | None]:
        return [self.trainer.keep, self.trainer.keep_every]

    def rewind(self) -> None:
        """Drop from the run's folder everything that was written after the restored state was saved."""
        self.run.rewind(self.clock.global_step, is_mid_epoch=self.clock.batch > 0)

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint in {self.run.checkpoints.folder} is whole, but its content is not a run's state: {error}\n"
            "  expected an unchanged checkpoint of dl-run: start the run again"
        )

    def _check_best(self, best: Best) -> str:
        """Reconcile with best.ckpt, which may be newer than the last checkpoint (after a kill) or lost.

        Returns a note for the user if it is lost, else "".
        """
        if best.score is None and not (self.run.checkpoints.folder / "best.ckpt").exists():
            return ""
        saved = Best(best.metric, "max", 0.0)
        try:
            saved.load_state_dict(self.run.checkpoints.load("best", self.run.id).get("best"))
        except ValueError as error:
            raise self._damaged(error) from None
        except CheckpointError as error:
            best.score = best.loss = None
            return f"{error}\n  the best epoch's weights are lost: the best of the remaining epochs is kept instead"
        for name in ("score", "loss", "epoch", "step"):
            setattr(best, name, getattr(saved, name))
        return ""

    def sync_buffers(self) -> None:
        """Copy rank 0's running statistics to all ranks; each rank computed its own on its shards."""
        averages = [update.ema for update in self.task.named_updates().values() if update.ema is not None]
        for net in (self.task.net, *averages):
            self.dist.broadcast_tensors(net.buffers())

    def is_validated(self) -> bool:
        """Whether to validate after the current epoch: every `val_every`-th, and the last."""
        epoch = self.clock.epoch + 1
        return epoch % self.trainer.val_every == 0 or epoch == self.trainer.epochs

    def is_cut(self, limit: str | None) -> bool:
        """Whether a limit ends the run at a place without a validation, such as in mid-epoch."""
        return limit is not None and not (self.clock.is_epoch_done and self.is_validated())

    def ordered_metrics(self) -> list[str]:
        """Names of metrics, the most informative first: the goal, the loss, the task's other scores."""
        return metric_order(self.task, self.best.metric if self.best else None)

    def running_loss(self) -> str:
        """The loss over the last steps, for the progress bar; empty if it is not known."""
        loss = self.means.running()
        return f"{loss[0]} {number(loss[1])}" if loss else ""

    def limit_reached(self, epochs: int | None = None) -> str | None:
        """Name of the limit that the run has reached, or None. Ranks agree on the time.

        epochs: number of whole epochs; None in mid-epoch, where only max_steps and max_time count.
        """
        seconds = 0.0
        if self.trainer.max_time:
            self.tick_seconds()
            seconds = self.dist.all_reduce_max(self.clock.seconds)
        reached = limits_reached(self.trainer, self.clock.step, seconds, epochs, self.best)
        return reached[0] if reached else None

    def stop_reason(self) -> str | None:
        """Why training should not start or continue an epoch (see Outcome.reason), or None if it should."""
        if self.clock.batch:  # a limit cut this epoch, and the run was resumed: its row is written again
            return None
        limit = self.limit_reached(self.clock.epoch)
        return "finished" if limit == "epochs" else limit


def metric_order(task: Task, first: str | None) -> list[str]:
    """Names of a task's metrics, the most informative first."""
    return list(dict.fromkeys([*([first] if first else []), "loss", *task.scores]))


def all_finite(state: object, but: Collection[str] = ()) -> bool:
    """Whether all floating-point tensors in nested dicts and lists are finite, except those with some keys."""
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, dict):
        return all(all_finite(value, but) for key, value in state.items() if key not in but)
    return all(all_finite(value, but) for value in state) if isinstance(state, list | tuple) else True
