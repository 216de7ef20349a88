"""Run jobs of a sweep as one stack, each in its own folder: from the sweep's file to the jobs' summaries.

The sweep starts this as a process of its own (`dl-run --stack=...`), with the command line of the first job.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from textwrap import indent
from typing import NamedTuple, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from dlrun.config.auto import auto_keys, value_of
from dlrun.config.check import check
from dlrun.config.flags import config_flags
from dlrun.config.saved import container, portable
from dlrun.data.base import has_samples
from dlrun.errors import CheckpointError, UserError
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.failures import OutOfMemory, within_memory, writing_to
from dlrun.output.folders import claim_folder, read_summary, require_plain
from dlrun.output.provenance import CHANGES, ENVIRONMENT, SECONDS
from dlrun.output.run_folder import Run
from dlrun.overrides import key_of, quoted
from dlrun.stack.fit import fit
from dlrun.stack.functions import NotStackable
from dlrun.stack.group import Member, Stack, restore
from dlrun.stack.trial import gain
from dlrun.sweep.rows import best_of
from dlrun.sweep.stacks import DECLINED, Verdict, parse, stack_folder, write_verdict
from dlrun.sweep.state import State, load_state
from dlrun.system.machine import keep_threads
from dlrun.system.signals import Signals
from dlrun.train.drawing import draw_finished
from dlrun.train.session import Session
from dlrun.train.start import locked, write_config

FEW = 8  # jobs of a stack up to which the plots of all are drawn
IN_THE_WAY = {  # keys whose other values have no stacked form
    "trainer.processes": 1, "trainer.on_nan": "stop", "trainer.max_time": None, "trainer.compile": False,
    "trainer.cuda_graph": False, "trainer.gradient_norms": False,
}  # fmt: skip


class Config(NamedTuple):
    """A job's config: plain and checked, the keys whose values depend on the data, and the files in .hydra."""

    plain: dict
    chosen: list[str]
    texts: dict[str, str]


def run_stack(composed: DictConfig, which: str) -> None:
    """Train jobs of a sweep together. composed: the config of the first. which: see sweep/stacks.py.

    Exits with DECLINED if the jobs cannot be stacked, with 128 + N after signal N. Raises UserError.
    """
    must_gain, stack, numbers = parse(which)
    sweep = Path(str(composed.run_dir)).parent
    state, lead = load_state(sweep), numbers[0]
    if not all(number < len(state.jobs) for number in (stack, *numbers)):
        raise UserError(f"--stack={which}: the sweep has no such jobs\n  expected what a sweep passes (it is internal)")
    checkpoints = Checkpoints(stack_folder(sweep, stack))
    saved = load(checkpoints, state)
    numbers = list(map(int, saved)) if saved else numbers
    numbers = [n for n in numbers if read_summary(state.run_folder(state.jobs[n])).get("status") != "finished"]
    if not numbers:
        return
    for number in numbers if saved else ():
        require_plain(state.run_folder(state.jobs[number]))
    folders = [state.run_folder(job) for job in state.jobs if job.stack == stack]
    is_drawn = len(folders) <= FEW
    try:
        configs = job_configs(composed, state, lead, numbers)
        members = make_members(state, configs)
        for member in members if saved else ():
            restore(member, saved[str(member.number)])
        with within_memory():
            group = Stack(members, checkpoints, state.facts["id"], is_drawn)
            verdict = Verdict(None if saved else gain(group))
        if not saved:
            if must_gain and (verdict.gain or 0) < 1:
                raise NotStackable(f"one after another they train {1 / (verdict.gain or 1):.1f} times as fast here")
            write_verdict(sweep, stack, verdict)
    except OutOfMemory as error:
        decline(sweep, stack, Verdict(why=str(error).partition("\n")[0], is_too_large=1))
    except (NotStackable, UserError) as error:
        if saved:
            raise
        decline(sweep, stack, Verdict(why=str(error).partition("\n")[0]))  # then a job with an error is refused alone
    if saved:
        keep_threads(next(iter(saved.values()))["state"]["threads"], members[0].session.device.torch_device)
    with ExitStack() as open_files, Signals() as signals, writing_to(sweep):
        try:
            open_folders(open_files, state, group, configs, bool(saved))
            is_done = fit(group, signals)
        except BaseException:
            group.abandon()
            raise
    if not is_done:
        sys.exit(128 + (signals.stop or 0))
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
        draw_finished(max(scored, key=lambda pair: pair[0])[1])


def decline(sweep: Path, stack: int, verdict: Verdict) -> NoReturn:
    """Leave the jobs to the sweep."""
    write_verdict(sweep, stack, verdict)
    sys.exit(DECLINED)


def load(checkpoints: Checkpoints, state: State) -> dict:
    """The parts of the stack's newest checkpoint, by job; empty if there is none."""
    if not checkpoints.folder.is_dir() or not any(checkpoints.folder.glob("*.ckpt")):
        return {}
    jobs = checkpoints.load_last(state.facts["id"])[0].get("jobs")
    known = {str(job.number) for job in state.jobs}
    if not isinstance(jobs, dict) or not jobs.keys() <= known:
        raise CheckpointError(f"{checkpoints.folder} is not of this sweep: expected the folder as dl-run wrote it")
    return jobs


def job_configs(composed: DictConfig, state: State, lead: int, numbers: Sequence[int]) -> dict[int, Config]:
    """The configs of jobs, from that of one of them: they differ in single keys (sweep/stacks.py)."""
    own = [str(key) for key in composed if key not in ("sweep", "hydra")]
    config = portable(OmegaConf.masked_copy(composed, own))
    names = dict(HydraConfig.get().runtime.choices)
    hydra = container(OmegaConf.create({"hydra": HydraConfig.get()}), resolve=False)
    hydra["hydra"]["overrides"]["task"] = ["OVERRIDES"]
    hydra_text = OmegaConf.to_yaml(hydra)
    base, parser, found = state.jobs[lead].overrides, OverridesParser.create(), {}
    differing = {key_of(o) for number in numbers for o in state.jobs[number].overrides if o not in base}
    for number in numbers:
        job, folder = state.jobs[number], state.run_folder(state.jobs[number])
        for override in parser.parse_overrides([o for o in job.overrides if key_of(o) in differing]):
            OmegaConf.update(config, override.key_or_group, override.value())
        config.run_dir = str(folder)
        values = container(config, resolve=True)
        chosen = auto_keys(values)
        check(values, names)
        task = [*job.overrides, f"run_dir={quoted(folder)}"]
        overrides = OmegaConf.to_yaml(task)
        texts = {
            "config": OmegaConf.to_yaml(config),
            "hydra": hydra_text.replace("    - OVERRIDES\n", indent(overrides, "    ")),
            "overrides": OmegaConf.to_yaml([*task, *config_flags(sys.argv[1:])]),
        }
        found[number] = Config(values, chosen, texts)
    return found


def make_members(state: State, configs: dict[int, Config]) -> list[Member]:
    """Build the jobs' runs; jobs whose data is the same share it. Writes nothing. Raises NotStackable."""
    names, members = dict(HydraConfig.get().runtime.choices), []
    like: Session | None = None
    for number, config in configs.items():
        if "data.batch_size" in config.chosen:
            raise NotStackable("data.batch_size=auto has no stacked form")
        member = make_member(number, config.plain, names, state.run_folder(state.jobs[number]), like, config.chosen)
        like = member.session
        members.append(member)
    return members


def make_member(
    number: int,
    config: dict,
    names: dict[str, str],
    folder: Path,
    like: Session | None = None,
    chosen: Sequence[str] = (),
) -> Member:
    """Build a job's run. like: that of another job of the stack. Writes nothing. Raises NotStackable."""
    for key, off in IN_THE_WAY.items():
        if value_of(config, key) not in (off, "auto"):
            raise NotStackable(f"{key}={value_of(config, key)} has no stacked form")
    session = Session(config, names, chosen, like=like)
    if like and session.steps_per_epoch != like.steps_per_epoch:
        raise NotStackable("the jobs differ in the number of steps per epoch")
    if like and has_samples(session.data) and session.data.size("train") != like.data.size("train"):
        raise NotStackable("the jobs differ in the number of train samples")
    training, _ = session.prepare(folder, resumed=False)
    losses = [value for key, value in config["task"].items() if key not in ("l1", "l2")]
    optimizer = dict(config["optimizer"])
    rates = [optimizer.pop("lr"), config["schedule"]]
    return Member(number, session, training, (json.dumps(optimizer), json.dumps(losses), json.dumps(rates)))


def open_folders(files: ExitStack, state: State, group: Stack, configs: dict[int, Config], is_resumed: bool) -> None:
    """Lock the jobs' folders, new or resumed, and write or reset what a run writes before its first step."""
    first: Path | None = None
    for member in sorted(group.members, key=lambda member: member.number):
        run, job = member.training.run, state.jobs[member.number]
        if not is_resumed:
            shutil.rmtree(run.folder, ignore_errors=True)  # of a stack that was killed before its first checkpoint
            claim_folder(run.folder, Path(member.session.config["output_dir"]).expanduser())
        files.enter_context(locked(run.folder))
        log = state.log(job)
        log.parent.mkdir(exist_ok=True)
        run.out = files.enter_context(open(log, "a", encoding="utf-8", errors="backslashreplace"))
        if is_resumed:
            run.resume(None, member.session.trainer.test)
            member.training.rewind()
            run.print(f"resuming {run.folder}")
        else:
            write_config(run.folder, configs[member.number].texts)
            first = first or run.folder
            copy_provenance(run, first)
        member.session.announce(member.training)


def copy_provenance(run: Run, first: Path) -> None:
    """Write which packages and changes a run uses; those of the first job are those of all."""
    if run.folder == first:
        run.write_provenance()
        if run.changes is not None:
            run.changes.join(SECONDS)
        return
    for name in (ENVIRONMENT, CHANGES):
        if (first / name).exists():
            shutil.copyfile(first / name, run.folder / name)
