"""Run jobs of a sweep as one stack, each in its own folder: from the sweep's file to the jobs' summaries.

The sweep starts this as a process of its own (`dl-run --stack=...`), with the command line of the first job.
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dlrun.config.auto import value_of
from dlrun.data.base import has_samples
from dlrun.errors import CheckpointError, UserError, described, first_line
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.failures import OutOfMemory, within_memory, writing_to
from dlrun.output.folders import claim_folder, read_summary, require_plain
from dlrun.output.provenance import CHANGES, ENVIRONMENT, SECONDS
from dlrun.output.run_folder import RunFolder
from dlrun.stack.configs import Config, job_configs, sweep_settings, with_auto_values
from dlrun.stack.fit import fit
from dlrun.stack.functions import NotStackable
from dlrun.stack.selection import selection_of
from dlrun.stack.stacked import Stack
from dlrun.stack.stacked_job import StackedJob, job_state, with_values
from dlrun.stack.timing import LEAST, Age, Timing, age
from dlrun.stack.trial import gain
from dlrun.sweep.population import first_values, varied
from dlrun.sweep.rows import best_of
from dlrun.sweep.settings import Population
from dlrun.sweep.space import read_axes
from dlrun.sweep.stacks import DECLINED, Verdict, halves, has_checkpoint, parse, stack_folder, write_verdict
from dlrun.sweep.state import State, load_state
from dlrun.system.machine import keep_threads
from dlrun.system.signals import Signals
from dlrun.train.plotting import plot_finished
from dlrun.train.session import Session
from dlrun.train.start import locked, write_config

FEW = 8  # jobs of a stack up to which the plots of all are drawn
IN_THE_WAY = {  # keys whose other values have no stacked form
    "trainer.processes": 1, "trainer.on_nan": "stop", "trainer.max_time": None, "trainer.compile": False,
    "trainer.cuda_graph": False, "trainer.gradient_norms": False,
}  # fmt: skip


def run_stack(composed: DictConfig, which: str) -> None:
    """Train jobs of a sweep together. composed: the config of the first. which: see sweep/stacks.py.

    Exits with DECLINED if the jobs cannot be stacked, with 128 + N after signal N. Raises UserError.
    """
    must_gain, number_of_stack, numbers = parse(which)
    sweep = Path(str(composed.run_dir)).parent
    state, lead = load_state(sweep), numbers[0]
    if not all(number < len(state.jobs) for number in (number_of_stack, *numbers)):
        raise UserError(f"--stack={which}: the sweep has no such jobs\n  expected what a sweep passes (it is internal)")
    checkpoints = Checkpoints(stack_folder(sweep, number_of_stack))
    saved, selected = load(checkpoints, state)
    numbers = list(map(int, saved)) if saved else numbers
    numbers = [n for n in numbers if read_summary(state.run_folder(state.jobs[n])).get("status") != "finished"]
    if not numbers:
        return
    for number in numbers if saved else ():
        require_plain(state.run_folder(state.jobs[number]))
    folders = [state.run_folder(job) for job in state.jobs if job.stack == number_of_stack]
    is_drawn = len(folders) <= FEW
    try:
        configs = job_configs(composed, state, lead, numbers)
        settings = sweep_settings(composed)
        axes = read_axes(state.facts["arguments"]) if isinstance(settings, Population) else []
        values: dict[int, dict[str, float]] = {number: {} for number in numbers}
        if saved:
            keys = [axis.name for axis in varied(axes)]
            values = {number: job_state(saved[str(number)], number, keys).values for number in numbers}
        elif isinstance(settings, Population):
            values = {number: first_values(settings, axes, number) for number in numbers}
        jobs, ready = make_jobs(state, configs, values)
        for job in jobs if saved else ():
            job.restore(saved[str(job.number)])
        selection = selection_of(settings, axes, jobs[0])
        with within_memory():
            stack = Stack(jobs, checkpoints, state.facts["id"], is_drawn, selection, selected)
            timing = None if saved else Timing(gain(stack), ready)
        if timing:
            if must_gain and timing.total(jobs) < LEAST:
                estimate = f"a trial of the stack gives {timing.total(jobs):.1f} times the speed here"
                raise NotStackable(f"{estimate}, and sweep.stack=auto asks for {LEAST}")
            write_verdict(sweep, number_of_stack, timing.verdict(jobs))
    except OutOfMemory as error:
        if saved:
            error.code = 1  # with more memory it can be continued
            raise
        decline(sweep, number_of_stack, too_large(error, numbers))
    except (NotStackable, UserError) as error:
        if saved:
            raise
        parts = error.parts if isinstance(error, NotStackable) else []  # a job with an error: alone
        decline(sweep, number_of_stack, Verdict(why=first_line(error), parts=parts))
    except Exception as error:  # of code of one's own, in ways that the trial does not foresee
        if saved:
            raise
        decline(sweep, number_of_stack, Verdict(why=described(error)))
    if saved:
        keep_threads(next(iter(saved.values()))["state"]["threads"], jobs[0].session.device.torch_device)
    try:
        with ExitStack() as open_files, Signals() as signals:
            try:
                with writing_to(sweep), within_memory():
                    open_folders(open_files, state, stack, configs, bool(saved))
                    is_done = fit(stack, signals)
            except BaseException as error:
                stack.abandon(error, lead)
                raise
    except OutOfMemory as error:
        if has_checkpoint(sweep, number_of_stack):
            error.code = 1
            raise
        remove(checkpoints, state, numbers)
        decline(sweep, number_of_stack, too_large(error, numbers))
    except NotStackable as error:  # in a later step than those of the trial
        if saved or any(read_summary(folder).get("status") == "finished" for folder in folders):
            late = UserError(
                f"{first_line(error)}\n  expected a network that stays the same: sweep.stack=off trains alone"
            )
            late.code = 1  # what is finished, and the checkpoint, stay
            raise late from error
        remove(checkpoints, state, numbers)
        decline(sweep, number_of_stack, Verdict(why=first_line(error)))
    except UserError as error:
        error.code = 1  # such as a full disk: the command was right
        raise
    if not is_done:
        sys.exit(128 + (signals.stop or 0))
    if timing:
        write_verdict(sweep, number_of_stack, timing.verdict(jobs, is_over=True))
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    if not is_drawn:
        draw_best(folders)


def draw_best(folders: Sequence[Path]) -> None:
    """Draw the plots of the best of these runs; those of all would take longer than small networks train."""
    scored = []
    for folder in folders:
        summary = read_summary(folder)
        best, scores = best_of(summary), summary.get("scores")
        if best.get("value") is not None and summary.get("status") == "finished" and isinstance(scores, dict):
            scored.append((best["value"] * (1 if scores.get(best["metric"]) == "max" else -1), folder))
    if scored:
        plot_finished(max(scored, key=lambda pair: pair[0])[1])


def too_large(error: OutOfMemory, numbers: Sequence[int]) -> Verdict:
    """The verdict on a stack for which there is too little memory."""
    return Verdict(why=first_line(error), parts=halves(numbers))


def remove(checkpoints: Checkpoints, state: State, numbers: Sequence[int]) -> None:
    """Delete what the stack has written, so that its jobs begin anew."""
    for folder in (checkpoints.folder, *(state.run_folder(state.jobs[number]) for number in numbers)):
        shutil.rmtree(folder, ignore_errors=True)


def decline(sweep: Path, number: int, verdict: Verdict) -> NoReturn:
    """Leave the jobs to the sweep."""
    write_verdict(sweep, number, verdict)
    sys.exit(DECLINED)


def load(checkpoints: Checkpoints, state: State) -> tuple[dict, int]:
    """The jobs' parts of the newest checkpoint, and the epoch of the last selection; none if there is no checkpoint."""
    if not checkpoints.folder.is_dir() or not any(checkpoints.folder.glob("*.ckpt")):
        return {}, 0
    checkpoint = checkpoints.load_last(state.facts["id"])[0]
    jobs, selected, known = checkpoint.get("jobs"), checkpoint.get("selected"), {str(job.number) for job in state.jobs}
    if not isinstance(jobs, dict) or not jobs.keys() <= known or not isinstance(selected, int):
        raise CheckpointError(f"{checkpoints.folder} is not of this sweep: expected the folder as dl-run wrote it")
    return jobs, selected


def make_jobs(
    state: State, configs: dict[int, Config], values: dict[int, dict[str, float]]
) -> tuple[list[StackedJob], Age]:
    """Build the jobs' runs; jobs whose data is the same share it. values: others of some keys (sweep/population.py).

    Also returns this process's age when the first was ready. Writes nothing. Raises NotStackable, with smaller stacks
    if these differ in the number of their steps.
    """
    names, jobs, ready = dict(HydraConfig.get().runtime.choices), list[StackedJob](), None
    sizes: dict[tuple[int, int], list[int]] = {}
    for number, config in configs.items():
        plain, folder = with_values(config.plain, values[number]), state.run_folder(state.jobs[number])
        sessions = [job.session for job in jobs]
        like = next((each for each in sessions if each.asked_data == plain["data"]), sessions[0] if sessions else None)
        job = make_job(number, plain, names, folder, like, config.chosen)
        job.values = values[number]
        jobs.append(job)
        ready = ready or age()
        sizes.setdefault(size(job.session), []).append(number)
    if len(sizes) > 1:
        epochs, samples = (len(set(each)) > 1 for each in zip(*sizes, strict=True))
        what = "train samples" if samples else "steps in an epoch"
        raise NotStackable(f"the jobs differ in the number of {what}", list(sizes.values()))
    return jobs, ready or age()


def size(session: Session) -> tuple[int, int]:
    """Steps of an epoch, and train samples; 0 of environments."""
    return session.steps_per_epoch, session.data.size("train") if has_samples(session.data) else 0


def make_job(
    number: int,
    config: dict,
    names: dict[str, str],
    folder: Path,
    like: Session | None = None,
    chosen: Sequence[str] = (),
) -> StackedJob:
    """Build a job's run. like: that of another job of the stack. Writes nothing. Raises NotStackable."""
    for key, off in IN_THE_WAY.items():
        if value_of(config, key) not in (off, "auto"):
            raise NotStackable(f"{key}={value_of(config, key)} has no stacked form")
    session = Session(config, names, chosen, like=like)
    training, _ = session.prepare(folder, resumed=False)
    return StackedJob(number, session, training)


def open_folders(files: ExitStack, state: State, stack: Stack, configs: dict[int, Config], is_resumed: bool) -> None:
    """Lock the jobs' folders, new or resumed, and write or reset what a run writes before its first step."""
    first: Path | None = None
    for job in sorted(stack.jobs, key=lambda job: job.number):
        run = job.training.run
        if not is_resumed:
            shutil.rmtree(run.folder, ignore_errors=True)  # of a stack that was killed before its first checkpoint
            claim_folder(run.folder, Path(job.session.config["output_dir"]).expanduser())
        files.enter_context(locked(run.folder))
        log = state.log(state.jobs[job.number])
        log.parent.mkdir(exist_ok=True)
        run.out = files.enter_context(open(log, "a", encoding="utf-8", errors="backslashreplace"))
        if is_resumed:
            run.resume(None, job.session.trainer.test)
            job.training.rewind()
            run.print(f"resuming {run.folder}")
        else:
            write_config(run.folder, with_auto_values(configs[job.number], job.session.config))
            first = first or run.folder
            copy_provenance(run, first)
        job.session.announce(job.training)


def copy_provenance(run: RunFolder, first: Path) -> None:
    """Write which packages and changes a run uses; those of the first job are those of all."""
    if run.folder == first:
        run.write_provenance()
        if run.changes is not None:
            run.changes.join(SECONDS)
        return
    for name in (ENVIRONMENT, CHANGES):
        if (first / name).exists():
            shutil.copyfile(first / name, run.folder / name)
