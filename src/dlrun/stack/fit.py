"""The training loop of a stack: that of train/engine.py, in step for all jobs."""

import time

from dlrun.stack.stacked import Stack
from dlrun.system.signals import Interrupted, Signals
from dlrun.train.engine import Outcome, end_epoch, epoch_row, log_row

AGAIN = "again"  # a job has left in mid-epoch


def fit(stack: Stack, signals: Signals) -> bool:
    """Train until all jobs are done. Returns False if a signal stopped them; they are saved then."""
    try:
        while stack.jobs:
            reasons = [job.training.stop_reason() for job in stack.jobs]
            if reason := next(filter(None, reasons), None):
                over = [job for job, why in zip(stack.jobs, reasons, strict=True) if why == reason]
                stack.finish(over, Outcome(reason), signals)
                continue
            stack.select()
            if not stack.jobs:  # the weights of all that were left were not finite
                break
            started, samples_before = time.perf_counter(), stack.first.clock.samples
            while (limit := train_epoch(stack, signals)) == AGAIN and stack.jobs:
                pass
            if stack.jobs:
                seconds, samples = time.perf_counter() - started, stack.first.clock.samples - samples_before
                end_epochs(stack, limit, seconds, samples, signals)
    except Interrupted:
        stack.stop()
        return False
    return True


def train_epoch(stack: Stack, signals: Signals) -> str | None:
    """Run the remaining steps of the epoch. Stop early at a limit, whose name is returned, at a signal, or AGAIN."""
    jobs, clocks = stack.jobs, [job.training.clock for job in stack.jobs]
    limit, log_every = stack.first.limit_reached(), stack.first.trainer.log_every
    learner, all_data = stack.learner, [job.session.data for job in jobs]
    for batch in learner.batches(all_data, clocks) if not limit else ():
        samples = learner.task.samples(batch)
        stack.means.add(learner.step(batch, clocks), samples)
        broken = learner.diverged(clocks)
        for clock in clocks:
            clock.tick(samples)
        for k, error in broken.items():
            stack.expel(jobs[k], error)
        if not stack.jobs:
            return AGAIN
        if log_every and stack.first.clock.step % log_every == 0:
            for job, window in zip(stack.jobs, stack.flush(), strict=True):
                if window:
                    log_row(job.training, window)
        limit = stack.first.limit_reached()
        if limit or signals.stop is not None:
            break
        if stack.is_due():
            stack.save()
        if len(stack.jobs) < len(jobs):
            return AGAIN
    return limit


def end_epochs(stack: Stack, limit: str | None, seconds: float, samples: int, signals: Signals) -> None:
    """Evaluate and log the epoch of each job. Raises Interrupted at a signal, before anything is logged."""
    with signals.interrupting():
        began, jobs = time.perf_counter(), list(stack.jobs)
        all_data, clocks = [job.session.data for job in jobs], [job.training.clock for job in jobs]
        is_validated = limit or stack.first.is_validated()
        vals = stack.learner.evaluate(all_data, clocks) if is_validated else [{}] * len(all_data)
        val_seconds = time.perf_counter() - began
    is_cut = stack.first.is_cut(limit)
    if is_cut:  # save before logging: with a higher limit, the epoch resumes from here
        stack.save()
        if not stack.jobs:  # the weights of all were not finite
            return
        stack.save_jobs()
    stack.flush()
    for job, val in zip(jobs, vals, strict=True):
        if job not in stack.jobs:  # its weights were not
            continue
        row = epoch_row(job.training, val, seconds, samples)
        row |= ({"time/val_seconds": val_seconds} if val else {}) | job.notes()
        job.training.clock.next_epoch()
        end_epoch(job.training, row, job.session.task.preview(job.session.data))
    if is_cut and limit:
        stack.finish(list(stack.jobs), Outcome(limit), signals, is_saved=True)
    elif stack.is_old(stack.first.trainer.checkpoint_gap):
        stack.save()
