"""The results of a run: the best weights, their metrics on the test split, and the entries of its summary."""

from math import isfinite

from dlrun.data.base import Data
from dlrun.errors import CheckpointError, Diverged
from dlrun.models.options import options_of
from dlrun.system.machine import peak_memory
from dlrun.train.engine import Outcome
from dlrun.train.limits import rounded_up
from dlrun.train.state import STATE_ERRORS, Training


def load_best(training: Training) -> None:
    """Load the best epoch's weights: from memory, or from best.ckpt if an earlier session found them."""
    checkpoints = training.run.checkpoints
    state = training.best_state or checkpoints.load("best", training.run.id)
    try:
        training.task.load_best_state(state["state_dict"])
        training.task.load_extra_state(state.get("fitted", {}))
    except STATE_ERRORS as error:
        raise CheckpointError(
            f"the best epoch's weights in {checkpoints.folder / 'best.ckpt'} do not fit this model: {error}\n"
            "  expected the file that the run wrote; to test the last weights, start a new run with "
            "trainer.test=last"
        ) from None


def measure_test(training: Training, data: Data) -> dict[str, float]:
    """The metrics of the test split. Raises Diverged if the loss is not finite, unless trainer.on_nan=skip.

    Of tasks without a loss the goal's metric decides. Others may be undefined, as the AUROC of a single class is.
    """
    test, best = training.task.evaluate(data, "test"), training.best
    name = "loss" if "loss" in test else best.metric if best else ""
    if best and training.trainer.on_nan == "stop" and not isfinite(test.get(name, 0.0)):
        raise Diverged(
            f"test/{name} is {test[name]}, though the weights of {training.clock.step} steps are "
            "finite\n  expected a finite number; try a lower optimizer.lr or trainer.clip_global_norm=1"
        )
    return test


def results(training: Training, data: Data, outcome: Outcome, test: dict[str, float]) -> dict[str, object]:
    """The entries of summary.json that are known after the test. Writes the files of the task's report."""
    task, run, clock, best = training.task, training.run, training.clock, training.best
    entries: dict[str, object] = {
        "stopped_by": outcome.reason,
        "epochs": clock.epoch,
        "steps": clock.step,
        "seconds": rounded_up(clock.seconds),
    }
    if best:
        entries["waited"] = best.waited  # epochs, as trainer.patience counts them
    if best and best.score is not None:
        entries["best"] = {"epoch": best.epoch, "metric": f"val/{best.metric}", "value": best.score}
    numbers = run.write_report(task.report(data))
    for report in (options_of(task.net).report, getattr(data, "report", None)):
        if report:
            numbers |= run.write_report(report())
    speeds = [row["time/samples_per_s"] for row in run.rows]
    entries |= {
        "test": {f"test/{name}": value for name, value in test.items()} | numbers,
        "samples_per_second": round(sorted(speeds)[len(speeds) // 2], 1) if speeds else None,
        "peak_memory_mb": peak_memory(training.task.device.torch_device),
    }
    if run.table:
        entries["table"] = run.table
    if skipped := sum(update.skipped for update in task.named_updates().values()):
        entries["skipped_steps"] = skipped
    return entries
