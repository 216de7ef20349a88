"""One session of a run, from config to summary: build, restore, fit, test, draw. results.py has the test."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

from dlrun.clock import Clock
from dlrun.config.auto import set_batch_size
from dlrun.data.base import Data, has_samples
from dlrun.errors import DependencyLost, Diverged, PeerLost, UserError
from dlrun.output.checkpoint import recovery_hint
from dlrun.output.failures import within_memory, writing_to
from dlrun.output.folders import read_summary
from dlrun.output.provenance import git_commit
from dlrun.output.run_folder import NullFolder, RunFolder
from dlrun.overrides import pasteable
from dlrun.system.machine import keep_threads, return_memory
from dlrun.system.signals import Interrupted, Signals
from dlrun.train.assemble import assemble
from dlrun.train.best import make_best
from dlrun.train.board_inputs import add_inputs
from dlrun.train.data_state import data_state
from dlrun.train.engine import Outcome, fit
from dlrun.train.plotting import plot
from dlrun.train.results import load_best, measure_test, results
from dlrun.train.state import Training
from dlrun.train.texts import facts, final_table, header
from dlrun.train.weights import other_words


class Session:
    """A run that is built and has read its data. Nothing is written before `start`.

    config: checked, as plain dicts and lists. names: the choice of each config group. chosen: the keys whose values
    depend on the data. changes: old and new values of keys that a resume changes although they change the bits. like:
    another run of this process, whose data is shared if its section of the config is the same. Raises UserError if the
    objects do not fit together or the data is missing.
    """

    def __init__(
        self,
        config: dict,
        names: dict[str, str],
        chosen: Sequence[str] = (),
        changes: Mapping[str, tuple[object, object]] | None = None,
        like: "Session | None" = None,
    ) -> None:
        self.config, self.names, self.chosen, self.changes = config, names, chosen, changes or {}
        self.asked_data = dict(config["data"])  # before batch_size=auto is resolved
        self.in_memory = False  # whether it trains on samples in the memory of a Python program
        self.is_training = False  # whether this session has begun to write to the run's folder
        self.data: Data
        self.commit: str | None = like.commit if like else git_commit()
        with within_memory():
            self._build(config, like if like and config["data"] in (like.asked_data, like.config["data"]) else None)

    def _build(self, config: dict, like: "Session | None") -> None:
        built = assemble(config, shared=like.data if like else None)
        self.trainer, self.data, self.device, self.task, self.loaded = built
        self.dist = self.device.dist
        self.best = make_best(self.task, self.trainer)  # refuses unknown metrics before any file is written
        if like is None:
            self.data.load(self.device.torch_device, self.device.channels_last)
            return_memory()
        if "data.batch_size" in self.chosen:
            self._choose_batch(config)
        self.task.prepare(self.data)
        self.data_state: dict = like.data_state if like else data_state(self.data)
        self.loaded += other_words(config["init"], self.data.fitted())
        if position := getattr(self.data, "position", None):  # of a stream, which cannot be asked for (epoch, batch)
            self.task.components["stream"] = position
        self.steps_per_epoch = self.task.steps(self.data)  # also refuses batches that are too small for the net

    def _choose_batch(self, config: dict) -> None:
        """Set the batch size for the number of samples, and scale the learning rates to it."""
        lr = config["optimizer"]["lr"]
        set_batch_size(config, self.chosen, self.data.size("train") // self.dist.size)
        if has_samples(self.data):
            self.data.batch_size = config["data"]["batch_size"] * self.dist.size
        for update in self.task.named_updates().values():
            update.scale_lr(config["optimizer"]["lr"] / lr)

    def start(
        self, folder: Path, resumed: bool, config: str | None = None, is_guest: bool = False
    ) -> tuple[Outcome, float | None]:
        """Train in this folder until the end or a signal. Returns the outcome, and the goal's best value or None.

        config: the new text of config.yaml for a resumed run. It is written once all checks have passed, so that a
        refused resume writes nothing. is_guest: see Signals.
        """
        with writing_to(folder), within_memory():
            training, notes = self.prepare(folder, resumed)
            run, self.is_training = training.run, True
            try:
                with Signals(self.dist, is_guest) as signals:
                    if resumed:
                        run.resume(config, self.trainer.test)
                        training.rewind()
                    else:
                        run.write_provenance()
                    for note in notes:
                        run.print(note)
                    outcome, value = self.train(training, signals)
                    run.close()
            except BaseException as error:
                is_stopped = isinstance(error, KeyboardInterrupt)
                self.leave(run, "diverged" if isinstance(error, Diverged) else "stopped" if is_stopped else "failed")
                if isinstance(error, DependencyLost):
                    raise DependencyLost(f"{error}\n  {recovery_hint(folder)}") from error
                if self.dist.is_peer_failure(error):
                    raise PeerLost(
                        f"another of the {self.dist.size} processes that train in {folder} died\n"
                        f"  expected all of them to run until the end; {recovery_hint(folder)}"
                    ) from None
                if isinstance(error, OSError | UserError) and not folder.exists():
                    raise UserError(
                        f"the run's folder {folder} was removed during the run\n"
                        "  expected it to stay until the end: start the run again"
                    ) from error
                raise
        return outcome, value

    def prepare(self, folder: Path, resumed: bool) -> tuple[Training, list[str]]:
        """The training state, new or restored from its checkpoint, and notes for the user. Writes nothing.

        Raises UserError if the run cannot be resumed.
        """
        epoch_samples = self.task.epoch_samples(self.data)
        clock = Clock(
            self.config["seed"], self.trainer.epochs, self.steps_per_epoch, self.trainer.max_steps, epoch_samples
        )
        before = read_summary(folder) if resumed else {}
        axis = "samples" if epoch_samples else "step"
        run = NullFolder(folder) if self.dist.rank else RunFolder(folder, facts(self), axis, before)
        training = Training(self.task, self.trainer, run, clock, self.data_state)
        if not resumed:
            if not self.config["init"]:
                self.task.init_from_data(self.data)
            return training, []
        state, failure = run.checkpoints.load_last(before.get("id"))
        lost_best = training.restore(state)
        stream = self.data.position.find(clock.seed) if hasattr(self.data, "position") else ""
        run.note_changes(before, self.changes, clock.step)
        threads = keep_threads(state["threads"], self.device.torch_device)
        first = f"{failure}\n  resuming from the previous checkpoint" if failure else f"resuming {folder}"
        changed = [
            f"from step {clock.step} on this is another run: {key}={new}, before {old}"
            for key, (old, new) in self.changes.items()
        ]
        return training, [note for note in (first, lost_best, threads, stream, *changed) if note]

    def train(self, training: Training, signals: Signals) -> tuple[Outcome, float | None]:
        """Fit, then test and draw. A signal during testing stops it; a resumed run tests again."""
        run = training.run
        self.announce(training)
        outcome = fit(training, self.data, signals)
        run.checkpoints.wait()
        if outcome.reason != "signal":
            try:
                with signals.interrupting():
                    return outcome, self.finish(training, outcome)
            except Interrupted:
                outcome = Outcome("signal", signals.stop)
        self.interrupted(training)
        return outcome, None

    def announce(self, training: Training) -> None:
        """Before the first step: print the header, write the summary, start the trackers."""
        head = partial(header, self, training.run.folder, training.clock)
        training.run.print(head(), head)
        training.run.write_summary("running")
        training.run.start_trackers(self.config.get("tracker") or {})
        is_first = not training.clock.step and not self.dist.rank
        if self.trainer.histograms and is_first and has_samples(self.data):
            add_inputs(training.run.board, self.data, self.config["seed"])

    def interrupted(self, training: Training) -> None:
        """After a signal: write the summary, and print how to resume."""
        run, clock = training.run, training.clock
        run.write_summary("stopped", steps=clock.step, seconds=clock.seconds)
        epoch = min(clock.epoch + 1, clock.epochs)
        again = f"dlrun.resume({str(run.folder)!r}, x=..., y=...)"
        command = again if self.in_memory else f"dl-run {pasteable('resume', run.folder)}"
        run.print(f"stopped in epoch {epoch} at step {clock.step}; checkpoint saved. Resume with: {command}")

    def leave(self, run: RunFolder | NullFolder, status: str) -> None:
        """After an error, finish the checkpoint being written and the summary, if possible, and close the files."""
        for last_act in (run.checkpoints.wait, partial(run.write_summary, status)):
            try:
                last_act()
            except UserError as error:
                with suppress(OSError):
                    run.print(f"{error}")
            except (OSError, MemoryError):
                pass  # the error that led here is the one to report
        with suppress(OSError):
            run.close()

    def finish(self, training: Training, outcome: Outcome, is_drawn: bool = True) -> float | None:
        """Test the best weights (or the last, by trainer.test), draw, and write the summary. Returns the best value."""
        run, clock, best = training.run, training.clock, training.best
        if best and best.score is not None and self.trainer.test == "best":
            load_best(training)
        test = measure_test(training, self.data)
        if self.dist.rank:
            return best.score if best else None
        entries = results(training, self.data, outcome, test)
        tested = cast("dict[str, object]", entries["test"])
        # a limit cut the epoch of the best weights: best.ckpt holds those of whole epochs, and a resume continues it
        is_cut = training.best_is_new and self.trainer.test == "best"
        if is_cut and training.best_state:
            run.checkpoints.write_tested(training.best_state, clock.step)
        run.write_summary("running", **entries)  # drawing may fail or take long; the results are safe before it
        if is_drawn:
            epoch = best.epoch if best and best.score is not None else None
            plot(run, self.task, self.data, best.metric if best else None, epoch, clock.global_step)
        run.board.add_scalars({run.axis: clock.global_step} | {f"test/{name}": value for name, value in test.items()})
        run.sync()  # a summary that reads "finished" must find every file complete
        run.write_summary("finished", **entries)
        run.checkpoints.forget_tested(clock.step if is_cut else None)
        baselines = self.data.baselines("test") if hasattr(self.data, "baselines") else {}
        split = getattr(self.data, "tested", "test")
        closing = partial(final_table, training, test, baselines, tested.get("per_class"), outcome.reason, split)
        run.print(closing(), lambda width: closing(width=width))
        return best.score if best else None
