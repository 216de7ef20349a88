"""`dl-run -m`: read a sweep's space and pass it to dlrun.sweep, which runs each job in its own process."""

import hashlib
import json
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import UserError, counted

if TYPE_CHECKING:
    from dlrun.sweep.axes import Axis
    from dlrun.sweep.job import Job
    from dlrun.sweep.settings import Settings
    from dlrun.sweep.state import State

WHY_NOT = {
    "mode": "it shows or measures one model\n"
    "  expected it without -m; for an experiment that is a sweep, with hydra.mode=RUN",
    "resume": "a run is resumed by itself: expected dl-run resume=<folder> without -m\n"
    "  resume a sweep with dl-run -m sweep.resume=<folder>",
    "run_dir": "each job has its own folder\n  expected output_dir=..., in which the sweep creates them",
}
COMBINATIONS = 16  # the most combinations of config groups that are composed at the start to check the parameters


@dataclass
class SweeperConf:
    """Hydra's config of this sweeper."""

    _target_: str = "hydra_plugins.dlrun_sweeper.sweeper.JobSweeper"
    params: dict[str, Any] = field(default_factory=dict)  # the sweep of an experiment; the command line wins


ConfigStore.instance().store(group="hydra/sweeper", name="dlrun", node=SweeperConf, provider="dl-run")


class JobSweeper(Sweeper):
    """Runs a grid of all sweep overrides, or a search over them."""

    config: DictConfig  # set by `setup`

    def __init__(self, params: DictConfig | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config = config
        self.loader = hydra_context.config_loader

    def sweep(self, arguments: list[str]) -> None:
        """Run all jobs and report them.

        Exits with 1 if a job failed, with 2 if all were refused, with 128 + N if signal N stopped the sweep.
        """
        from dlrun.config.hydra_section import check_launcher
        from dlrun.config.saved import container
        from dlrun.output.json_line import ENDING
        from dlrun.sweep import forks, population, stacks
        from dlrun.sweep.axes import grid
        from dlrun.sweep.cluster import Cluster
        from dlrun.sweep.job import Job
        from dlrun.sweep.plan import Plan
        from dlrun.sweep.report import closing
        from dlrun.sweep.runner import Runner
        from dlrun.sweep.screen import Screen
        from dlrun.sweep.settings import Grid, Population, Search
        from dlrun.sweep.slots import Slots
        from dlrun.sweep.space import read_axes

        settings, arguments = self.read_settings(arguments)
        axes = read_axes(arguments, self.loader)
        base = self.compositions(axes, not isinstance(settings, Grid))
        launcher = container(self.config.hydra.launcher, resolve=True)
        check_launcher(launcher)
        is_here = launcher["_target_"] == "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
        start = forks.prepare() if is_here else None
        slots = Slots.of(settings, str(self.config.trainer.device)) if is_here else Slots(settings.jobs, None, [])
        alone = "sweep.job_timeout" if settings.job_timeout else "" if is_here else "a cluster"
        note = ""
        if alone and not isinstance(settings, Population) and settings.stack != "off":
            note = f"sweep.stack={settings.stack} with {alone}: each job is a process of its own, in no stack"
        if isinstance(settings, Search):
            from dlrun.sweep.search import Optuna

            stack = "off" if alone else settings.stack
            plan: Plan = Optuna(settings, axes, self.config.trainer.epochs, stack)
            jobs: list[Job] = []
        elif isinstance(settings, Population):
            population.check(settings, axes, self.config.trainer.epochs)
            if not is_here:
                raise UserError("sweep=pbt on a cluster: its members are one process\n  expected hydra/launcher=basic")
            plan, jobs = Plan(), [Job(i, point) for i, point in enumerate(population.points(settings, axes))]
            stacks.join(jobs)
        else:
            plan, jobs = Plan(), [Job(i, point) for i, point in enumerate(grid(axes))]
            note = note or stacks.plan(jobs, settings.stack, slots.num)
        screen = Screen()
        with self.opened(settings, arguments, axes, base, jobs) as state:
            ENDING.folder = state.folder
            with state.alone():
                plan.open(state)
            how = "resuming a " if settings.resume else "joining a " if settings.join else ""
            screen.tell(f"{how}sweep of {counted(state.facts['total'], 'job')} in {state.folder}")
            if note:
                screen.tell(note)
            timeout = 60 * settings.job_timeout if settings.job_timeout else float("inf")
            stays = not settings.join
            launch = start or Cluster(launcher, state.folder).start
            command = partial(self.command, state)
            setting: stacks.Setting = "only" if isinstance(settings, Population) else settings.stack
            runner = Runner(state, plan, slots, timeout, command, screen, stays, launch, setting)
            stopped = runner.run()
        screen.show(closing(state, stopped))
        if stopped or any(job.code not in (0, None) and job.status != "pruned" for job in state.jobs):
            is_refused = all(job.status == "refused" for job in state.jobs)
            sys.exit(128 + stopped if stopped else 2 if is_refused else 1)

    def opened(
        self, settings: "Settings", arguments: list[str], axes: "list[Axis]", base: dict, jobs: "list[Job]"
    ) -> "AbstractContextManager[State]":
        """A context with the sweep's state: a new one, or that of a sweep that is resumed or joined.

        base: the jobs' composed configs. jobs: of a new grid.
        """
        from dlrun.config.flags import config_flags
        from dlrun.config.hydra_internals import args_parser
        from dlrun.sweep.opening import compare, existing_sweep, new_sweep

        joins_study = settings.join and not os.path.isdir(settings.join)  # a URL was replaced by a study's name
        if existing := settings.resume or (None if joins_study else settings.join):
            unchanged = partial(compare, arguments=arguments, base=base, axes=axes)
            return existing_sweep(Path(existing), settings, unchanged)
        typed = args_parser().parse_args(sys.argv[1:]).overrides
        command: dict[str, object] = {"command": typed, "flags": config_flags(sys.argv[1:]), "arguments": arguments}
        command["configs"] = hashlib.sha256(json.dumps(base).encode()).hexdigest()
        command |= {"study": settings.join} if joins_study else {}
        files = {"multirun.yaml": OmegaConf.to_yaml(self.config), "base": base}
        return new_sweep(Path(self.config.output_dir).expanduser(), settings, command, jobs, files)

    def read_settings(self, arguments: list[str]) -> "tuple[Settings, list[str]]":
        """Return the checked settings and the overrides that define the space, including those of an experiment."""
        from dlrun.config.build import build
        from dlrun.config.check import check_section
        from dlrun.config.saved import plain
        from dlrun.config.zips import is_zip, pairs_of
        from dlrun.overrides import key_of
        from dlrun.sweep.folds import with_folds
        from dlrun.sweep.population import with_seeds
        from dlrun.sweep.settings import Grid, Population

        keys = {key_of(argument) for argument in arguments if not is_zip(argument)}
        keys |= {key.lstrip("+") for argument in arguments if is_zip(argument) for key, _ in pairs_of(argument)}
        for key in keys & {"resume", "run_dir"}:
            raise UserError(f"{key}=... in a sweep: {WHY_NOT[key]}")
        if "mode" in keys and self.config.mode != "train":
            raise UserError(f"mode={self.config.mode} in a sweep: {WHY_NOT['mode']}")
        settings_only = [argument for argument in arguments if key_of(argument).split(".")[0].split("@")[0] == "sweep"]
        for override in OverridesParser.create().parse_overrides(settings_only):
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: a sweep cannot sweep over itself\n  expected one value")
        ours = [str(key) for key in self.config if key != "hydra"]
        section = plain(OmegaConf.masked_copy(self.config, ours))["sweep"]
        check_section("sweep", section)
        settings = build(section)
        if settings.resume and settings.join:
            raise UserError("sweep.resume and sweep.join: expected only one of the two")
        if settings.resume and not Path(settings.resume).is_absolute():
            raise UserError(f"sweep.resume={settings.resume}: expected dl-run -m sweep.resume={settings.resume}")
        if settings.retry and not settings.resume:
            raise UserError(
                f"sweep.retry={settings.retry} needs a sweep that is resumed\n"
                f"  expected dl-run -m sweep.resume=last sweep.retry={settings.retry}"
            )
        space = {**getattr(settings, "space", {}), **self.params}
        params = [f"{key}={value}" for key, value in space.items() if key not in keys]
        chosen = [*params, *(argument for argument in arguments if argument not in settings_only)]
        self.own = [o for o in settings_only if key_of(o) not in ("sweep.resume", "sweep.join", "sweep.retry")]
        chosen = with_folds(chosen, not isinstance(settings, Grid))
        return settings, with_seeds(chosen, settings) if isinstance(settings, Population) else chosen

    def compositions(self, axes: "list[Axis]", is_search: bool) -> dict[str, object]:
        """Compose the configs of the jobs, one per combination of config groups, to compare them when a sweep resumes.

        Raises UserError if none can be composed, for example because of an unknown key, or if all are refused for the
        same reason; for a search also if one of the ends of its axes is not a valid value.
        """
        from dlrun.config.check import check
        from dlrun.config.explain import explain
        from dlrun.config.saved import container, plain

        choices = [axis for axis in axes if axis.is_swept and axis.rows and any(map(self._is_group, axis.keys))]
        bases: dict[str, object] = {}
        refused, problems, is_valid = "", list[UserError](), False
        for rows in islice(product(*(axis.rows for axis in choices)), COMBINATIONS):
            chosen = dict(zip(map(id, choices), rows, strict=True))
            for high in (False, True):
                if high and not is_search and not problems:
                    break
                point = [o for axis in axes for o in (chosen[id(axis)] if id(axis) in chosen else axis.end(high))]
                try:
                    config = self.loader.load_sweep_config(self.config, point)
                    keys = [str(key) for key in config if key not in ("hydra", "sweep")]
                    values = plain(OmegaConf.masked_copy(config, keys)) if is_search or not is_valid else {}
                except UserError:
                    raise
                except Exception as error:  # Hydra and OmegaConf can raise any exception
                    refused = refused or explain(error, point)
                    continue
                base = {k: v for k, v in container(config, resolve=False).items() if k not in ("hydra", "sweep")}
                try:
                    if values:
                        check(values, dict(config.hydra.runtime.choices))
                    is_valid = True
                except UserError as error:
                    if is_search:
                        raise
                    problems.append(error)
                bases.setdefault(" ".join(override for row in rows for override in row), base)
        if not bases:
            raise UserError(refused)
        if problems and not is_valid and not refused and len({str(problem) for problem in problems}) == 1:
            raise problems[0]
        return bases

    def _is_group(self, key: str) -> bool:
        return bool(self.loader.get_group_options(key.lstrip("+").split("@")[0]))

    def command(self, state: "State", job: "Job", is_resumed: bool) -> list[str]:
        """Return the command line of a job: the sweep's overrides at one point of the space, or a resume of its run."""
        from dlrun.config.flags import config_flags
        from dlrun.overrides import quoted
        from dlrun.system.python import COMMAND

        folder = quoted(state.run_folder(job))
        if is_resumed:
            return [sys.executable, *COMMAND, f"resume={folder}", "hydra.mode=RUN"]
        hydras = [o for o in self.config.hydra.overrides.hydra if not o.startswith("hydra.mode=")]
        last = [f"run_dir={folder}", "hydra.mode=RUN"]
        stacked = self.own if job.stack is not None else []  # a stack decides which of its jobs continue
        return [sys.executable, *COMMAND, *stacked, *job.overrides, *hydras, *last, *config_flags(sys.argv[1:])]
