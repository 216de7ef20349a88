"""The state of a training that a checkpoint holds: saved, restored, and asked whether it is over."""

import time
from math import isclose

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.errors import CheckpointError, DataError, Diverged, UserError, check_state, nearest
from dlrun.output.checkpoint import snapshot
from dlrun.output.run_folder import Run
from dlrun.overrides import pasteable
from dlrun.tasks.base import Task
from dlrun.train.meters import Best, Means
from dlrun.train.trainer import Trainer

WRONG = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)  # where a state is not one's own


class Training:
    """What one call of `fit` (train/engine.py) works on: the state that a checkpoint holds, and when to write one.

    about: what checkpoints say of the data.
    """

    def __init__(self, task: Task, trainer: Trainer, run: Run, clock: Clock, about: dict) -> None:
        self.task, self.trainer, self.run, self.clock, self.about = task, trainer, run, clock, about
        self.world = task.device.world
        self.means, self.best = Means(), make_best(task, trainer)
        self.best_state: dict | None = None
        self.best_is_new = self.has_exploded = self.forgets_best = False
        self.saved_at = self.session_start = time.monotonic()
        self.saved: tuple[int, ...] | None = None  # where the clock stood in the newest checkpoint
        self.seconds_before = clock.seconds

    def save(self) -> None:
        """Checkpoint what is now, which the first process does. Snapshots are taken here; the disk is written in the
        background. To be called by all processes at the same time where each has parts of its own.
        """
        if self.saved == self.clock.position:
            return
        self.saved_at, self.saved = time.monotonic(), self.clock.position
        own = self.task.own if self.world.size > 1 else ()
        states = {name: self.task.parts[name].state_dict() for name in own}
        others = self.world.gather_objects(snapshot(states)) if own else []
        if self.world.rank:
            return
        self.tick_seconds()
        last = snapshot(
            {
                "parts": {name: part.state_dict() for name, part in self.task.parts.items()},
                "clock": self.clock.state_dict(),
                "means": self.means.state_dict(),
                "best": self.best.state_dict() if self.best else None,
                "rows": self.run.num_rows,
                "run": self.run.id,
                **self.about,
                "threads": torch.get_num_threads(),
                "others": others,
            }
        )
        last["state_dict"] = last["parts"].get("net")
        if not all_finite(last["parts"]):
            raise Diverged(
                f"the weights are not finite any more in epoch {self.clock.epoch + 1}, step {self.clock.step}\n"
                "  expected finite weights; the checkpoint before this one is kept\n"
                "  try a lower optimizer.lr or trainer.clip_global_norm=1"
            )
        self.run.sync()
        self.run.checkpoints.write(last, self.best_state if self.best_is_new else None)
        self.best_is_new = False

    def is_due(self) -> bool:
        every = self.trainer.checkpoint_every_steps
        return bool(every) and self.clock.step % every == 0 or self.is_old(60 * self.trainer.checkpoint_every_minutes)

    def is_old(self, seconds: float) -> bool:
        """Whether the newest checkpoint is; for all processes, where all take part in the next."""
        is_old = time.monotonic() - self.saved_at >= seconds
        return bool(self.world.all_reduce_max(is_old)[0]) if self.task.own else is_old

    def tick_seconds(self) -> None:
        self.clock.seconds = self.seconds_before + time.monotonic() - self.session_start

    def restore(self, state: dict) -> str:
        """Everything as it was when `state` was saved. Gives a note where the best weights are lost. Writes nothing."""
        if not isinstance(state.get("parts"), dict):
            raise self._wrong(ValueError("it holds no parts"))
        if not is_same_data(state, self.about):
            raise DataError(
                f"{self.run.folder}: the data is not what it was: its parts have other samples, statistics, words or "
                "classes\n  expected the data that the run was started with (DL_RUN_DATA_DIR and data_dir say where)\n"
                f"  for other data, start a new run from its weights: {pasteable('init', self.run.folder)}"
            )
        if state["parts"].keys() != self.task.parts.keys():
            raise CheckpointError(f"the checkpoint holds {sorted(state['parts'])}, expected {sorted(self.task.parts)}")
        for name, part in self.task.parts.items():
            try:
                is_own = self.world.rank and name in self.task.own
                states = state["others"][self.world.rank - 1] if is_own else state["parts"]
                part.load_state_dict(states[name])
            except WRONG as error:
                raise CheckpointError(
                    f"the checkpoint's {name!r} is not what the config in {self.run.folder / '.hydra'} makes: {error}\n"
                    "  expected the config that the run was started with\n"
                    f"  for another, start a new run from its weights: {pasteable('init', self.run.folder)}"
                ) from None
        try:
            self.clock.load_state_dict(state["clock"])
            device = self.task.device.device
            pending = [[{k: v.to(device) for k, v in metrics.items()}, n] for metrics, n in state["means"]["pending"]]
            self.means.load_state_dict({**state["means"], "pending": pending})
            if self.best and state["best"]:
                self.best.load_state_dict(state["best"])
            counts = {name: state[name] for name in ("rows", "threads")}
            check_state(counts, dict.fromkeys(counts, int))
            if state["rows"] < 0 or not 1 <= state["threads"] <= 1024:
                raise ValueError(f"rows: {state['rows']}, threads: {state['threads']}: they are counts")
        except WRONG as error:
            raise self._wrong(error) from None
        if self.clock.batch and self.clock.epoch >= self.trainer.epochs:
            raise UserError(
                f"trainer.epochs={self.trainer.epochs}: the run is in epoch {self.clock.epoch + 1} already\n"
                f"  expected trainer.epochs={self.clock.epoch + 1} or more"
            )
        self.seconds_before = self.clock.seconds
        self.run.id = state.get("run") or self.run.id
        self.run.read_back(state["rows"])
        return self._check_best() if self.best and state["best"] else ""

    def go_back(self) -> None:
        """The folder as it was when the restored state was saved: what was written since then is forgotten."""
        if self.forgets_best and not self.world.rank:
            self.run.checkpoints.forget_partial_best()
        self.run.go_back(self.clock.global_step, is_mid_epoch=self.clock.batch > 0)

    def _wrong(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint in {self.run.checkpoints.folder} is whole, but not what a run writes: {error}\n"
            "  expected one that dl-run wrote and nobody changed: start the run again"
        )

    def _check_best(self) -> str:
        """The best checkpoint may be newer than the last (a kill between the two), or gone: gives a note of that."""
        if self.best.score is None and not (self.run.checkpoints.folder / "best.ckpt").exists():
            return ""
        try:
            found = self.run.checkpoints.load("best", self.run.id)
            self.forgets_best = bool(found.get("is_partial"))  # of the epoch that is resumed now
            if self.forgets_best:
                return ""
            best = Best(self.best.metric, "max", 0.0)
            try:
                best.load_state_dict(found.get("best"))
            except ValueError as error:
                raise self._wrong(error) from None
            for name in ("score", "loss", "epoch", "step"):
                setattr(self.best, name, getattr(best, name))
            return ""
        except CheckpointError as error:
            self.best.score = self.best.loss = None
            return f"{error}\n  the best epoch's weights are lost: the best of the epochs to come is kept instead"

    def keep_partial_best(self) -> None:
        """Where a limit ends the run in mid-epoch, and its weights are the best."""
        if self.best_is_new and not self.world.rank:
            self.run.checkpoints.write_partial_best(self.best_state)

    def sync_buffers(self) -> None:
        """Running statistics, which each process took of its own part of the batches, as the first has them."""
        averages = [update.ema for update in self.task.named_updates().values() if update.ema is not None]
        for net in (self.task.net, *averages):
            self.world.broadcast_tensors(net.buffers())

    def is_validated(self, limit: str | None) -> bool:
        """Whether the epoch under way is one whose end is validated: every `val_every`th, and the last."""
        epoch = self.clock.epoch + 1
        return bool(limit) or epoch % self.trainer.val_every == 0 or epoch == self.trainer.epochs

    def first_metrics(self) -> list[str]:
        """Names in the order of what they tell: the goal, the loss, what else is measured."""
        return list(dict.fromkeys([*([self.best.metric] if self.best else []), "loss", *self.task.scores]))

    def limit_reached(self) -> str | None:
        """Which limit the run has reached, if any."""
        if self.trainer.max_steps and self.clock.step >= self.trainer.max_steps:
            return "max_steps"
        if self.trainer.max_time:
            self.tick_seconds()
            (is_over,) = self.world.all_reduce_max(self.clock.seconds >= 60 * self.trainer.max_time)
            return "max_time" if is_over else None
        return None

    def stop_reason(self) -> str | None:
        """Why no epoch is to be started, or gone on with, if there is a reason."""
        if self.clock.epoch >= self.trainer.epochs:
            return "finished"
        if self.clock.batch:  # in mid-epoch, as runs are that stopped at a limit: their last row is written again
            return None
        if self.best and self.trainer.patience and self.best.waited >= self.trainer.patience:
            return "patience"
        if self.best and self.best.reaches(self.trainer.stop_at):
            return "stop_at"
        return self.limit_reached()


def about(data: object) -> dict:
    """What checkpoints say of the data: what it learned from its train part, for those who use the weights later, and
    what tells whether it is what it was.
    """
    found = {"data": data.fitted(), "digest": data.digest()}
    return found | ({"sums": data.sums()} if hasattr(data, "sums") else {})  # environments have no arrays


def is_same_data(state: dict, about: dict) -> bool:
    """Whether data is that of a checkpoint. One of an older version has no digest."""
    return all(_alike(state[key], about[key]) for key in about if key in state)


def _alike(a: object, b: object) -> bool:
    """Equal; numbers up to what another machine may round otherwise."""
    if isinstance(a, float) and isinstance(b, float):
        return isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    return a == b


def make_best(task: Task, trainer: Trainer) -> Best | None:
    """By the task's goal, or by trainer.monitor. Raises UserError where the task does not measure that."""
    name = task.goal if trainer.monitor is None else trainer.monitor.removeprefix("val/")
    if name is None:
        for key, value in (("patience", trainer.patience), ("stop_at", trainer.stop_at)):
            if value is not None:
                raise UserError(f"trainer.{key}={value}: this task has no goal, so name one with trainer.monitor")
        return None
    if name not in task.scores:
        near, known = nearest(name, task.scores), ", ".join(f"val/{each}" for each in task.scores)
        raise UserError(f"trainer.monitor={trainer.monitor} is not measured here{near}\n  expected one of: {known}")
    return Best(name, task.scores[name], trainer.min_delta)


def all_finite(state: object) -> bool:
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return all(all_finite(value) for value in values)
