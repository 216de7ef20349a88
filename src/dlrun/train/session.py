"""One run from config to summary: build, restore, fit, test, draw."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import isfinite
from pathlib import Path

import numpy
import torch

import dlrun
from dlrun.clock import Clock
from dlrun.config.auto import settle_batch, words
from dlrun.errors import CheckpointError, Diverged, PartLost, PeerLost, UserError, counted
from dlrun.output import plots
from dlrun.output.checkpoint import way_on
from dlrun.output.console import header, number, table
from dlrun.output.failures import within_memory, writing_to
from dlrun.output.folders import read_summary, write_whole
from dlrun.output.run_folder import Run, Silent, git_commit
from dlrun.overrides import pasteable
from dlrun.system.machine import device_name, keep_threads, peak_memory
from dlrun.system.signals import Interrupted, Signals
from dlrun.train.assemble import assemble
from dlrun.train.engine import Outcome, fit
from dlrun.train.state import Training, about, make_best
from dlrun.train.weights import other_words


class Session:
    """A run that is built and ready. Nothing is written before `start`.

    config: checked, plain. names: the groups' choices. chosen: the keys whose value goes by the data.
    Raises UserError where the parts do not fit or data is missing.
    """

    def __init__(self, config: dict, names: dict[str, str], chosen: Sequence[str] = ()) -> None:
        self.config, self.names, self.chosen = config, names, chosen
        with within_memory():
            self._make(config)

    def _make(self, config: dict) -> None:
        self.trainer, self.data, self.place, self.task, self.loaded = assemble(config)
        self.world = self.place.world
        self.best = make_best(self.task, self.trainer)  # refuses what is not measured, before a file is written
        self.data.load(self.place.device, self.place.channels_last)
        if "data.batch_size" in self.chosen:
            self._choose_batch(config)
        self.loaded += other_words(config["init"], self.data.fitted())
        self.steps_per_epoch = self.task.steps(self.data)  # refuses batches that the net cannot take, too

    def _choose_batch(self, config: dict) -> None:
        """The batch for as many samples as there are, each process's share of it, and the rate for it."""
        rate = config["optimizer"]["lr"]
        settle_batch(config, self.chosen, self.data.size("train") // self.world.size)
        self.data.batch_size = config["data"]["batch_size"] * self.world.size
        for update in self.task.named_updates().values():
            update.scale_rate(config["optimizer"]["lr"] / rate)

    def start(self, folder: Path, resumed: bool, config: str | None = None) -> tuple[Outcome, float | None]:
        """Train in this folder to the end or to a signal. Gives the outcome and the goal metric, if it came to that.

        config: the text of config.yaml, which is written when all is checked: a resume that is refused writes nothing.
        """
        with writing_to(folder), within_memory():
            training, notes = self.prepare(folder, resumed)
            run = training.run
            try:
                with Signals(self.world) as signals:
                    if resumed:
                        run.resume(config, self.trainer.test)
                        training.go_back()
                    for note in notes:
                        run.say(note)
                    outcome, value = self.train(training, signals)
                    run.close()
            except BaseException as error:
                self.leave(run, "diverged" if isinstance(error, Diverged) else "failed")
                if isinstance(error, PartLost):
                    raise PartLost(f"{error}\n  {way_on(folder)}") from error
                if self.world.is_peer_failure(error):
                    raise PeerLost(
                        f"another of the {self.world.size} processes that train in {folder} died\n"
                        f"  expected all of them until the end; {way_on(folder)}"
                    ) from None
                if isinstance(error, OSError | UserError) and not folder.exists():
                    raise UserError(
                        f"the run's folder {folder} was removed while the run was going on\n"
                        "  expected it to stay until the end: start the run again"
                    ) from error
                raise
        return outcome, value

    def prepare(self, folder: Path, resumed: bool) -> tuple[Training, list[str]]:
        """The training as it starts, or as its checkpoint has it, and notes for the user. Writes nothing.

        Raises UserError where the run cannot be resumed.
        """
        epoch_samples = self.task.epoch_samples(self.data)
        clock = Clock(
            self.config["seed"], self.trainer.epochs, self.steps_per_epoch, self.trainer.max_steps, epoch_samples
        )
        before = read_summary(folder) if resumed else {}
        facts, axis = self.facts(), "samples" if epoch_samples else "step"
        run = Silent(folder) if self.world.rank else Run(folder, facts, axis, before)
        training = Training(self.task, self.trainer, run, clock, about(self.data))
        if not resumed:
            return training, []
        state, why = run.checkpoints.load_last(before.get("id"))
        lost = training.restore(state)
        threads = keep_threads(state["threads"], self.place.device)
        first = f"{why}\n  going on from the checkpoint before it" if why else f"resuming {folder}"
        return training, [note for note in (first, lost, threads) if note]

    def train(self, training: Training, signals: Signals) -> tuple[Outcome, float | None]:
        """Fit and finish. A signal in `finish` stops that: what was learnt is saved, it can be done again."""
        run, clock = training.run, training.clock
        head = partial(self.header, run.folder, clock)
        run.say(head(), head)
        run.summarise("running")
        outcome = fit(training, self.data, signals)
        run.checkpoints.wait()
        if outcome.reason != "signal":
            try:
                with signals.interrupting():
                    return outcome, self.finish(training, outcome)
            except Interrupted:
                outcome = Outcome("signal", signals.stop)
        run.summarise("interrupted", steps=clock.step, seconds=clock.seconds)
        epoch = min(clock.epoch + 1, clock.epochs)
        on = f"dl-run {pasteable('resume', run.folder)}"
        run.say(f"stopped in epoch {epoch} at step {clock.step}, saved; go on with: {on}")
        return outcome, None

    def leave(self, run: Run, status: str) -> None:
        """What is under way goes to the disk, if it can, and the summary says how the run ended."""
        for last_act in (run.checkpoints.wait, partial(run.summarise, status)):
            try:
                last_act()
            except UserError as error:
                with suppress(OSError):
                    run.say(f"{error}")
            except OSError:
                pass  # what it follows from is told
        with suppress(OSError):
            run.close()

    def finish(self, training: Training, outcome: Outcome) -> float | None:
        """Test the best weights, once; draw; sum up."""
        task, run, clock, best = self.task, training.run, training.clock, training.best
        if best and best.score is not None and self.trainer.test == "best":
            state = training.best_state or run.checkpoints.load("best", run.id)
            try:
                task.load_best_state(state["state_dict"])
            except (RuntimeError, KeyError, TypeError) as error:
                path = run.checkpoints.folder / "best.ckpt"
                raise CheckpointError(
                    f"the best epoch's weights in {path} are not this model's: {error}\n"
                    "  expected those that the run wrote: test the last ones by trainer.test=last in a new run"
                ) from None
        results = {
            "stopped_by": outcome.reason,
            "epochs": clock.epoch,
            "steps": clock.step,
            "seconds": round(clock.seconds, 3),
        }
        if best:
            results["waited"] = best.waited  # epochs, as trainer.patience counts them
        if best and best.score is not None:
            results["best"] = {"epoch": best.epoch, "metric": f"val/{best.metric}", "value": best.score}
        test = task.evaluate(self.data, "test")
        if best and self.trainer.on_nan == "stop" and not isfinite(test.get(best.metric, 0.0)):
            raise Diverged(
                f"test/{best.metric} is {test[best.metric]}, though the weights of {clock.step} steps are finite\n"
                "  expected a finite number; try a lower optimizer.lr or trainer.clip_global_norm=1"
            )
        if self.world.rank:
            return best.score if best else None
        report = run.keep(task.report(self.data))
        if hasattr(task.net, "report"):  # what the net itself has to tell
            report |= run.keep(task.net.report())
        speeds = [row["time/samples_per_s"] for row in run.rows]
        results |= {
            "test": {f"test/{name}": value for name, value in test.items()} | report,
            "samples_per_second": round(sorted(speeds)[len(speeds) // 2], 1) if speeds else None,
            "peak_memory_mb": peak_memory(self.place.device),
        }
        if skipped := sum(update.skipped for update in task.named_updates().values()):
            results["skipped_steps"] = skipped
        run.summarise("running", **results)  # before anything is drawn
        self.draw(training)
        board = run.tensorboard()
        for name, value in test.items():
            board.add_scalar(f"test/{name}", value, clock.global_step)
        run.sync()  # whoever reads in the summary that the run is finished finds all of it
        run.summarise("finished", **results)
        run.checkpoints.forget_tested()
        run.say(self.final_table(training, test, outcome))
        return best.score if best else None

    def draw(self, training: Training) -> None:
        """The report's figures and the metrics' curves, the goal's first."""
        run, best, spec = training.run, training.best, self.data.spec
        marked, over = best.epoch if best and best.score is not None else None, run.axis.replace("step", "epoch")
        for name in plots.worth_drawing(run.rows, run.windows, training.first_metrics()):
            goal = getattr(spec, "goal", None) if name == self.task.goal else None
            run.figures[name] = partial(plots.curves, run.rows, name, marked, run.windows, over, goal)
        run.draw(training.clock.global_step, getattr(spec, "labels", ()))

    def facts(self) -> dict:
        versions = {"dlrun": dlrun.__version__, "torch": torch.__version__, "numpy": numpy.__version__}
        return {
            **{name: self.names.get(name) for name in ("data", "model", "task", "optimizer", "schedule", "experiment")},
            "seed": self.config["seed"],
            "goal": f"val/{self.best.metric}" if self.best else None,
            "scores": {f"val/{name}": mode for name, mode in self.task.scores.items()},
            "device": device_name(self.place.device),
            "precision": self.place.precision,
            "processes": self.world.size,
            "start": self.loaded or None,
            "classes": named_classes(self.data.spec) or None,
            "parameters": sum(p.numel() for p in self.task.net.parameters()),
            "versions": {**versions, "python": sys.version.split()[0]},
            "git": git_commit(),
        }

    def header(self, folder: Path, clock: Clock, width: int = 10_000) -> str:
        data, place = self.data, self.place
        sizes = ", ".join(f"{data.size(split):,} {split}" for split in ("train", "val", "test"))
        if frames := self.task.epoch_samples(data):  # of environments, which are played for val and test, too
            sizes = f"{frames:,} frames an epoch"
        parameters = sum(p.numel() for p in self.task.net.parameters())
        frozen = sum(p.numel() for p in self.task.net.parameters() if not p.requires_grad)
        about = f"{f', {frozen:,} of them frozen' if frozen else ''}{getattr(self.task.net, 'about', '')}"
        classes = f"; classes: {', '.join(names)}" if (names := named_classes(data.spec)) else ""
        count = torch.get_num_threads()
        threads = f" ({count} thread{'s' if count > 1 else ''})" if place.device.type == "cpu" else ""
        processes = f"{self.world.size} x " if self.world.size > 1 else ""
        return header(
            dlrun.__version__,
            {
                "data": f"{self.names.get('data')}: {sizes}; {data.describe()}{classes}{self.batches()}",
                "model": f"{self.names.get('model')}: {parameters:,} parameters{about}",
                "device": f"{processes}{device_name(place.device)}{threads}, {place.precision}: {place.why}",
                "folder": f"{folder}",
            }
            | ({"start": self.loaded} if self.loaded else {})
            | ({"chosen": f"by the data: {words(self.config, self.chosen)}"} if self.chosen else {}),
            width,
        )

    def batches(self) -> str:
        """What is to be known of a batch that is larger than what there is."""
        size = self.data.size("train")
        if self.task.epoch_samples(self.data) or self.data.batch_size <= size:
            return ""
        return f"; an epoch is one batch: data.batch_size={self.data.batch_size:,} is more than {size:,}"

    def final_table(self, training: Training, test: dict, outcome: Outcome) -> str:
        best, run, clock = training.best, training.run, training.clock
        why = "all epochs done" if outcome.reason == "finished" else f"trainer.{outcome.reason} reached"
        row = next((row for row in run.rows if best and best.score is not None and row["epoch"] == best.epoch), {})
        head = ["", *test]
        val = [
            f"val (epoch {best.epoch})" if row else "val",
            *(number(row[f"val/{n}"]) if row.get(f"val/{n}") is not None else "-" for n in test),
        ]
        is_last = self.trainer.test == "last" or best and best.score is None  # the best was lost, or never was
        tested = "test" if not is_last else f"test (epoch {clock.epoch})"
        rows = [head, val, [tested, *(number(v) for v in test.values())]]
        return f"\n{table(rows)}\n\n{why}; {counted(clock.step, 'step')} in {clock.seconds:.1f} s; {run.folder}"


def named_classes(spec: object) -> list[str]:
    """The first ten classes' names, and "..." for more; none where they are numbers from 0 on."""
    labels = list(getattr(spec, "labels", ()))
    if labels == [str(i) for i in range(len(labels))]:
        return []
    return labels[:10] + ["..."] * (len(labels) > 10)


def write_config(folder: Path, files: dict[str, str]) -> None:
    """The `.hydra` folder: config.yaml, hydra.yaml, overrides.yaml."""
    with writing_to(folder):
        (folder / ".hydra").mkdir(exist_ok=True)
        for name, text in files.items():
            write_whole(folder / ".hydra" / f"{name}.yaml", text)
