"""The training loop: pull batches, let the task learn, evaluate, log and save.

The loop never asks what kind of task it runs. `fit` is the whole of it; read it first, then `train_epoch`. The words
(clock, epoch, session, step) are defined in docs/glossary.md.
"""

import time
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from dlrun.data.base import Data
from dlrun.errors import counted
from dlrun.optim.update import EARLY
from dlrun.output.checkpoint import snapshot
from dlrun.output.console import Bar, epoch_line
from dlrun.output.rows import is_of_tensor
from dlrun.seeds import Reseeder
from dlrun.system.signals import Interrupted, Signals
from dlrun.train.keep import kept_epochs
from dlrun.train.meters import Means
from dlrun.train.state import Training

EXPLODED = 100  # an early loss this many times the first one is reported


@dataclass
class Outcome:
    """Why training stopped.

    reason: "finished" (all epochs are done), "patience", "stop_at", "max_steps", "max_time" or "signal".
    number: the signal's number; None for any other reason.
    """

    reason: str
    number: int | None = None


def fit(training: Training, data: Data, signals: Signals) -> Outcome:
    """Train until all epochs are done, a limit is reached, patience runs out, or a signal arrives."""
    task, clock = training.task, training.clock
    with Bar(clock, training.running_loss) as bar:
        while not (reason := training.stop_reason()):
            bar.start_epoch()
            started, samples_before = time.perf_counter(), clock.samples
            limit = train_epoch(training, data, signals, bar)
            seconds, samples = time.perf_counter() - started, clock.samples - samples_before
            bar.validating()
            training.sync_buffers()
            began = time.perf_counter()
            try:
                with signals.interrupting():
                    val = task.evaluate(data, "val") if limit or training.is_validated() else {}
                val = training.dist.broadcast_object(val)  # all ranks must agree on which epoch is the best
            except Interrupted:
                training.save()
                return Outcome("signal", signals.stop)
            is_cut = training.is_cut(limit)
            if is_cut:  # save before logging: with a higher limit, the epoch resumes from here
                training.save()
            row = epoch_row(training, val, seconds, samples)
            row |= {"time/val_seconds": time.perf_counter() - began} if val else {}
            clock.next_epoch()
            bar.close()
            end_epoch(training, row, task.preview(data), bar.seconds_left())
            if is_cut and limit:
                return Outcome(limit)
            if training.is_old(training.trainer.checkpoint_gap):
                training.save()
        training.save()
    return Outcome(reason)


def train_epoch(training: Training, data: Data, signals: Signals, bar: Bar) -> str | None:
    """Run the remaining steps of the epoch. Stop early at a limit, whose name is returned, or at a signal."""
    task, clock, dist, log_every = training.task, training.clock, training.dist, training.trainer.log_every
    reseed, add, limit = Reseeder(task.device.torch_device), training.means.add, training.limit_reached()
    seed = dist.seed(clock.seed)
    watches = training.trainer.gradient_norms
    if watches:
        task.watch_gradients()
    task.net.train()
    for batch in task.batches(data, clock) if not limit else ():
        reseed(seed, clock.step)
        samples = dist.samples or task.samples(batch)
        metrics = task.step(batch, clock)
        if watches and metrics:
            metrics |= task.gradient_norms()
        add(dist.means(metrics), samples)
        clock.tick(samples)
        bar.tick(samples)
        if log_every and clock.step % log_every == 0:
            log_window(training)
        limit = training.limit_reached()
        if dist.size > 1:
            signals.agree(dist)
        if limit or signals.stop is not None:
            break
        if training.is_due():
            training.save()
    return limit


def log_window(training: Training) -> None:
    """Log the means over the steps since the last such row."""
    if window := training.means.flush():
        log_row(training, window)


def log_row(training: Training, window: dict[str, float]) -> None:
    """Log the means of metrics over some steps."""
    clock = training.clock
    row: dict[str, float] = {"step": clock.step, "epoch": round(clock.epochs_done, 6), "samples": clock.samples}
    row |= {f"step/{name}": value for name, value in training.task.logged(window).items()}
    training.run.log(row, clock.global_step)


def epoch_row(training: Training, val: dict[str, float], seconds: float, samples: int) -> dict[str, float]:
    """The epoch's row of metrics: train means, val metrics, learning rates, speed.

    seconds, samples: training time and samples of the epoch in this session (fewer than the whole if it was resumed).
    """
    clock, updates = training.clock, training.task.named_updates()
    row: dict[str, float] = {"step": clock.step, "epoch": clock.epoch + 1, "samples": clock.samples}
    means = training.task.logged(training.means.result())
    row |= {f"train/{name}": value for name, value in means.items() if not is_of_tensor(name)}  # these: step/ only
    row |= {f"val/{name}": value for name, value in val.items()}
    row |= {name.removesuffix("update") + "lr": update.lr for name, update in updates.items()}  # lr, critic_lr
    skipped = sum(update.skipped for update in updates.values())
    row |= {"train/skipped_steps": skipped} if skipped else {}
    return row | {"time/seconds": seconds, "time/samples_per_s": samples / max(seconds, 1e-9)}


def end_epoch(
    training: Training, row: dict[str, float], previews: dict[str, Tensor], left: float | None = None
) -> None:
    """Log the epoch's row and preview images; keep the weights if they are the best so far.

    left: seconds until the run is done, to print.
    """
    task, run, clock, best = training.task, training.run, training.clock, training.best
    training.means = Means()
    score = row.get(f"val/{best.metric}") if best else None
    is_best = best is not None and score is not None and best.update(score, clock, row.get("val/loss"))
    run.log(row, clock.global_step, previews)
    kept = kept_epochs(run.rows, best, training.trainer)
    if is_best or clock.epoch in kept:
        state = snapshot(
            {
                "state_dict": task.best_state(),
                "fitted": task.extra_state(),
                "metrics": row,
                "best": best.state_dict() if best else None,
                "clock": clock.state_dict(),
                "run": run.id,
            }
        )
        state |= training.data_state
        if is_best:
            training.best_state, training.best_is_new = state, True
        if clock.epoch in kept:
            run.checkpoints.keep_epoch(state, clock.epoch)
    if not training.dist.rank and (training.trainer.keep or training.trainer.keep_every):
        run.checkpoints.forget_epochs(kept, training.kept_since)
    if training.trainer.histograms and not training.dist.rank:
        for name, weight in task.net.named_parameters():
            if weight.abs().max() < 1e19:  # TensorBoard's bins end at 1e20, and none holds a non-finite number
                run.board.add_histogram(name, weight.detach().cpu(), clock.global_step)
    line = partial(epoch_line, row, training.trainer.epochs, is_best, first=training.ordered_metrics(), left=left)
    run.print(line(), line)
    if warning := explosion(training, row.get("val/loss")):
        training.has_exploded = True
        run.print(warning)


def explosion(training: Training, val_loss: float | None) -> str | None:
    """Return a warning, once, if a loss of the first steps rose far above the first one.

    Only for tasks that score by their loss: the losses of adversarial tasks and of policies may rise.
    """
    clock = training.clock
    if training.has_exploded or "loss" not in training.task.scores or clock.step > EARLY:
        return None
    update = training.task.update
    highest = max(update.peak, val_loss or 0.0)
    if not highest > EXPLODED * update.first_loss > 0:
        return None
    split, lr = "train" if highest == update.peak else "val", update.optimizer.defaults["lr"]
    return (
        f"the {split} loss rose to {highest:.4g} within {counted(clock.step, 'step')}; it began at "
        f"{update.first_loss:.4g}\n"
        f"  expected a falling loss: try optimizer.lr={lr / 10:.2g} (now {lr:.2g}) or trainer.clip_global_norm=1"
    )
