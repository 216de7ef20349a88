"""The loop: pulls batches, has the task learn from them, evaluates, logs and saves. It never asks what kind of task it is."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlrun.checkpoint import load, snapshot
from dlrun.clock import Clock
from dlrun.console import Bar, epoch_line
from dlrun.errors import CheckpointError, UserError, nearest
from dlrun.run import Run
from dlrun.seeds import Reseeder
from dlrun.tasks.base import Task
from dlrun.types import Count, Index, NonNegative, Positive, Rate
from dlrun.update import Diverged


@dataclass(frozen=True)
class Trainer:
    """How to train; every key is in configs/trainer/default.yaml with its unit."""

    epochs: Count
    max_steps: Count | None
    max_time: Positive | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    deterministic: bool
    clip_value: Positive | None
    clip_norm: Positive | None
    clip_global_norm: Positive | None
    ema: Rate
    on_nan: Literal["stop", "skip"]
    val_every: Count
    monitor: str | None
    test: Literal["best", "last"]
    patience: Count | None
    min_delta: NonNegative
    log_every: Index
    histograms: bool
    checkpoint_every_steps: Count | None
    checkpoint_every_minutes: Positive
    checkpoint_gap: NonNegative


class Means:
    """Means over an epoch, summed on the device; scalars weigh as many samples as their batch has."""

    def __init__(self) -> None:
        self.pending: list[tuple[dict[str, Tensor], int]] = []
        self.sums: dict[str, float] = {}
        self.samples = 0

    def add(self, metrics: dict[str, Tensor], samples: int) -> None:
        """Metrics of a step; nothing where the step was left out."""
        if metrics:
            self.pending.append((metrics, samples))

    def fold(self) -> dict[str, float]:
        """The means over what came since the last fold, which is added to the epoch's sums."""
        if not self.pending:
            return {}
        counts = [n for _, n in self.pending]
        total, names = sum(counts), list(self.pending[0][0])
        sums = []
        for name in names:
            values = [metrics[name] for metrics, _ in self.pending]
            if values[0].dim():
                sums.append(torch.cat(values).sum().float())
            else:
                weights = torch.tensor(counts, dtype=torch.float32, device=values[0].device)
                sums.append((torch.stack(values).float() * weights).sum())
        window = dict(zip(names, torch.stack(sums).tolist(), strict=True))
        for name, value in window.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.samples += total
        self.pending.clear()
        return {name: value / total for name, value in window.items()}

    def result(self) -> dict[str, float]:
        self.fold()
        return {name: value / self.samples for name, value in self.sums.items()}

    def state_dict(self) -> dict:
        return {"pending": [[metrics, n] for metrics, n in self.pending], "sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        self.pending = [(metrics, n) for metrics, n in state["pending"]]
        self.sums, self.samples = state["sums"], state["samples"]


class Best:
    """The best epoch so far by one metric, and how long nothing better came.

    A better score is any better one; patience counts the epochs up to the last validated one since a score that was better
    by more than min_delta (the anchor). A score that is not finite is never better.
    """

    def __init__(self, metric: str, mode: str, min_delta: float) -> None:
        self.metric, self.sign, self.min_delta = metric, 1 if mode == "max" else -1, min_delta
        self.score, self.epoch, self.step = None, 0, 0
        self.anchor, self.anchor_epoch, self.waited = None, 0, 0

    def update(self, score: float, clock: Clock) -> bool:
        """Whether this score is the best one."""
        if self._is_better(score, self.anchor, self.min_delta):
            self.anchor, self.anchor_epoch = score, clock.epoch
        self.waited = clock.epoch - self.anchor_epoch
        is_best = self._is_better(score, self.score, 0.0)
        if is_best:
            self.score, self.epoch, self.step = score, clock.epoch, clock.step
        return is_best

    def _is_better(self, score: float, than: float | None, by: float) -> bool:
        return math.isfinite(score) and (than is None or self.sign * (score - than) > by)

    def state_dict(self) -> dict:
        return {k: getattr(self, k) for k in ("metric", "score", "epoch", "step", "anchor", "anchor_epoch", "waited")}

    def load_state_dict(self, state: dict) -> None:
        self.__dict__.update(state)


def make_best(task: Task, trainer: Trainer) -> Best | None:
    """By the task's goal, or by trainer.monitor. Raises UserError where the task does not measure that."""
    name = trainer.monitor.removeprefix("val/") if trainer.monitor else task.goal
    if name is None:
        if trainer.patience:
            raise UserError(
                f"trainer.patience={trainer.patience}: this task has no goal, so name one with trainer.monitor"
            )
        return None
    if name not in task.scores:
        known = ", ".join(f"val/{each}" for each in task.scores)
        raise UserError(
            f"trainer.monitor={trainer.monitor} is not measured here{nearest(name, task.scores)}\n  expected one of: {known}"
        )
    return Best(name, task.scores[name], trainer.min_delta)


class Signals:
    """SIGINT and SIGTERM asked for a stop: the first lets the step end, the second stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = False

    def __enter__(self) -> "Signals":
        self.before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        if self.at_once:
            raise Interrupted

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Where nothing changes, a signal need not wait: it raises Interrupted."""
        self.at_once = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self.at_once = False


class Interrupted(BaseException):
    """A signal came where it may stop the work at once. Not an Exception: no library is to swallow it."""


@dataclass
class Outcome:
    """reason: "finished" (all epochs done), "patience", "max_steps", "max_time" or "signal". number: the signal's."""

    reason: str
    number: int | None = None


class Training:
    """What one call of `fit` works on: the state that a checkpoint holds, and when to write one."""

    def __init__(self, task: Task, trainer: Trainer, run: Run, clock: Clock) -> None:
        self.task, self.trainer, self.run, self.clock = task, trainer, run, clock
        self.means, self.best = Means(), make_best(task, trainer)
        self.best_state: dict | None = None
        self.best_is_new = False
        self.saved_at = self.session_start = time.monotonic()
        self.saved: tuple[int, ...] | None = None  # where the clock stood in the newest checkpoint
        self.seconds_before = clock.seconds

    def save(self) -> None:
        """Checkpoint what is now. Snapshots are taken here; the disk is written in the background."""
        if self.saved == self.clock.position:
            return
        self.tick_seconds()
        last = snapshot(
            {
                "parts": {name: part.state_dict() for name, part in self.task.parts.items()},
                "clock": self.clock.state_dict(),
                "means": self.means.state_dict(),
                "best": self.best.state_dict() if self.best else None,
                "rows": self.run.num_rows,
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
        self.best_is_new, self.saved_at, self.saved = False, time.monotonic(), self.clock.position

    def is_due(self) -> bool:
        every = self.trainer.checkpoint_every_steps
        old = time.monotonic() - self.saved_at >= 60 * self.trainer.checkpoint_every_minutes
        return old or bool(every) and self.clock.step % every == 0

    def tick_seconds(self) -> None:
        self.clock.seconds = self.seconds_before + time.monotonic() - self.session_start

    def restore(self, state: dict) -> None:
        """Everything as it was when `state` was saved, what was logged since then forgotten."""
        if state["parts"].keys() != self.task.parts.keys():
            raise CheckpointError(f"the checkpoint holds {sorted(state['parts'])}, expected {sorted(self.task.parts)}")
        for name, part in self.task.parts.items():
            try:
                part.load_state_dict(state["parts"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"the checkpoint's part {name!r} is not what the config in {self.run.folder / '.hydra'} makes: {error}\n"
                    f"  expected the config that the run was started with; for another start anew with init={self.run.folder}"
                ) from None
        self.clock.load_state_dict(state["clock"])
        self.seconds_before = self.clock.seconds
        device = self.task.place.device
        pending = [[{k: v.to(device) for k, v in metrics.items()}, n] for metrics, n in state["means"]["pending"]]
        self.means.load_state_dict({**state["means"], "pending": pending})
        if self.best and state["best"]:
            self.best.load_state_dict(state["best"])
            self._check_best()
        self.run.go_back(state["rows"], self.clock.step, is_mid_epoch=self.clock.batch > 0)

    def _check_best(self) -> None:
        """The best checkpoint may be newer than the last (a kill between the two), or gone."""
        if self.best.score is None and not (self.run.checkpoints.folder / "best.ckpt").exists():
            return
        try:
            found = load(self.run.checkpoints.folder / "best.ckpt")["best"]
            self.best.score, self.best.epoch, self.best.step = found["score"], found["epoch"], found["step"]
        except CheckpointError as error:
            self.run.say(
                f"{error}\n  the best epoch's weights are lost: the best of the epochs to come is kept instead"
            )
            self.best.score = None

    def is_validated(self, limit: str | None) -> bool:
        """Whether the epoch under way is one whose end is validated: every `val_every`th, and the last."""
        epoch = self.clock.epoch + 1
        return bool(limit) or epoch % self.trainer.val_every == 0 or epoch == self.trainer.epochs

    def spent(self) -> str | None:
        """Which limit the run has reached, if any."""
        if self.trainer.max_steps and self.clock.step >= self.trainer.max_steps:
            return "max_steps"
        if self.trainer.max_time:
            self.tick_seconds()
            return "max_time" if self.clock.seconds >= 60 * self.trainer.max_time else None
        return None

    def over(self) -> str | None:
        """Why no epoch is to be started, or gone on with, if there is a reason."""
        if self.clock.epoch >= self.trainer.epochs:
            return "finished"
        if (
            self.clock.batch
        ):  # in mid-epoch; also of a run that had stopped at a limit, whose last row is to be written again
            return None
        if self.best and self.trainer.patience and self.best.waited >= self.trainer.patience:
            return "patience"
        return self.spent()


def fit(training: Training, data: object, signals: Signals) -> Outcome:
    """Train until the epochs are done, a limit is reached, patience is at its end, or a signal comes."""
    task, clock = training.task, training.clock
    with Bar(clock) as bar:
        while not (reason := training.over()):
            bar.start_epoch()
            started, seen = time.perf_counter(), clock.samples
            limit = train_epoch(training, data, signals, bar)
            seconds, samples = time.perf_counter() - started, clock.samples - seen
            bar.validating()
            try:
                with signals.interrupting():
                    val = task.evaluate(data, "val") if training.is_validated(limit) else {}
            except Interrupted:
                training.save()
                return Outcome("signal", signals.received)
            if limit:  # saved before its row: with a higher limit the epoch goes on from here
                training.save()
            bar.close()
            row = epoch_row(training, val, seconds, samples)
            clock.next_epoch()
            bar.close()
            end_epoch(training, row, task.preview(data))
            if limit:
                if training.best_is_new:
                    training.run.checkpoints.write_best(training.best_state)
                return Outcome(limit)
            if time.monotonic() - training.saved_at >= training.trainer.checkpoint_gap:
                training.save()
        training.save()
    return Outcome(reason)


def train_epoch(training: Training, data: object, signals: Signals, bar: Bar) -> str | None:
    """The rest of an epoch's steps, or fewer where a limit is reached (which is given back) or a signal comes."""
    task, clock, log_every = training.task, training.clock, training.trainer.log_every
    reseed, add, limit = Reseeder(task.place.device), training.means.add, training.spent()
    task.net.train()
    for batch in task.batches(data, clock) if not limit else ():
        reseed(clock.seed, clock.step)
        samples = task.samples(batch)
        add(task.step(batch, clock), samples)
        clock.tick(samples)
        bar.tick()
        if log_every and clock.step % log_every == 0:
            log_window(training)
        limit = training.spent()
        if limit or signals.received is not None:
            break
        if training.is_due():
            training.save()
    return limit


def log_window(training: Training) -> None:
    """A row of the means over the last steps."""
    clock, window = training.clock, training.means.fold()
    if window:
        row = {"step": clock.step, "epoch": round(clock.epoch + clock.batch / clock.steps_per_epoch, 6)}
        training.run.log(row | {f"step/{name}": value for name, value in window.items()}, clock.step)


def epoch_row(training: Training, val: dict[str, float], seconds: float, samples: int) -> dict:
    """The epoch's means beside the val part's metrics. seconds, samples: of this session's part of the epoch."""
    clock, update = training.clock, training.task.parts.get("update")
    row = {"step": clock.step, "epoch": clock.epoch + 1, "samples": clock.samples}
    row |= {f"train/{name}": value for name, value in training.means.result().items()}
    row |= {f"val/{name}": value for name, value in val.items()}
    if update:
        row["lr"] = update.lr
        row |= {"train/skipped_steps": update.skipped} if update.skipped else {}
    return row | {"time/seconds": seconds, "time/samples_per_s": samples / max(seconds, 1e-9)}


def end_epoch(training: Training, row: dict, pictures: dict) -> None:
    """Log the row and keep the weights if they are the best so far."""
    task, run, clock, best = training.task, training.run, training.clock, training.best
    training.means = Means()
    score = row.get(f"val/{best.metric}") if best else None
    is_best = score is not None and best.update(score, clock)
    if is_best:
        net = task.evaluated()
        training.best_state = snapshot(
            {"state_dict": net.state_dict(), "metrics": row, "best": best.state_dict(), "clock": clock.state_dict()}
        )
        training.best_is_new = True
    run.log(row, clock.step, pictures)
    if training.trainer.histograms:
        for name, weight in task.net.named_parameters():
            run.tensorboard().add_histogram(name, weight.detach().cpu(), clock.step)
    run.say(epoch_line(row, training.trainer.epochs, is_best))


def all_finite(state: object) -> bool:
    if isinstance(state, Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return all(all_finite(value) for value in values)
