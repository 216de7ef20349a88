"""`dl-run -m`: every job is a process of its own, with its own folder; what happens to one is no other's concern."""

import csv
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from dlrun.console import number, table
from dlrun.errors import UserError
from dlrun.folders import new_folder, read_summary, write_whole

EXIT_WORDS = {1: "failed", 2: "refused", 130: "stopped", 143: "stopped", -2: "stopped", -15: "stopped", -9: "killed"}
WHY_NOT = {
    "resume": "a run is resumed by itself, expected dl-run resume=<folder> without -m",
    "run_dir": "each job has a folder of its own\n  expected output_dir=..., under which the sweep makes them",
}


@dataclass
class SweeperConf:
    _target_: str = "hydra_plugins.dlrun_sweeper.sweeper.JobSweeper"
    params: dict[str, Any] = field(default_factory=dict)  # an experiment's own sweep; the command line wins


ConfigStore.instance().store(group="hydra/sweeper", name="dlrun", node=SweeperConf, provider="dl-run")


@dataclass
class Job:
    """One point of the grid. code: the exit code of its process, None before it ran."""

    number: int
    overrides: list[str]
    folder: Path
    code: int | None = None

    @property
    def status(self) -> str:
        summary = read_summary(self.folder).get("status", "failed") if self.code in (0, 1) else ""
        if self.code == 0 or summary == "diverged":
            return summary
        return "not run" if self.code is None else EXIT_WORDS.get(self.code, f"exit {self.code}")


class JobSweeper(Sweeper):
    """Runs the grid of all sweep overrides, job after job."""

    def __init__(self, params: DictConfig | None = None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: object, task_function: object, config: DictConfig) -> None:
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Run all jobs, print and write the table. Exit code 1 if any failed, a signal's if one stopped the sweep."""
        given = {argument.lstrip("+~").split("=")[0] for argument in arguments}
        for key in given & {"resume", "run_dir"}:
            raise UserError(f"{key}=... in a sweep: {WHY_NOT[key]}")
        arguments = [*(f"{k}={v}" for k, v in self.params.items() if k not in given), *arguments]
        parser = OverridesParser.create()
        points = BasicSweeper.split_arguments(parser.parse_overrides(arguments), max_batch_size=None)[0]
        folder = new_folder(Path(self.config.output_dir), "sweep")
        write_whole(folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        jobs = [Job(i, list(point), folder / str(i)) for i, point in enumerate(points)]
        print(f"sweep of {len(jobs)} jobs in {folder}", flush=True)
        stopped = self._run(jobs)
        print(f"\n{report(jobs, folder)}\n\n{folder / 'results.csv'}", flush=True)
        failed = sum(job.code not in (0, None) for job in jobs)
        if stopped or failed:
            sys.exit(128 + stopped if stopped else 1)

    def _run(self, jobs: list[Job]) -> int:
        """Job after job, until a signal comes: its number, else 0."""
        received: list[int] = []
        child: list[subprocess.Popen] = []

        def stop(number: int, frame: object) -> None:
            received.append(number)
            if child and child[-1].poll() is None:
                child[-1].send_signal(number)

        before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            for job in jobs:
                if received:
                    break
                print(f"\n[{job.number + 1}/{len(jobs)}] {' '.join(job.overrides)}", flush=True)
                # a session of its own: the terminal's Ctrl-C reaches it once, through `stop`
                child.append(subprocess.Popen(self.command(job), start_new_session=True))
                if received:  # while the process was being made
                    child[-1].send_signal(received[0])
                job.code = child[-1].wait()
                if job.code and not received:
                    print(f"job {job.number} {job.status} (exit code {job.code})", flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return received[0] if received else 0

    def command(self, job: Job) -> list[str]:
        """The command line of a job: what the sweep was given, at one point of the grid."""
        flags = get_args_parser().parse_args(sys.argv[1:])
        passed = [
            f"--{name.replace('_', '-')}={value}"
            for name in ("config_name", "config_path", "config_dir")
            if (value := getattr(flags, name))
        ]
        hydras = [o for o in self.config.hydra.overrides.hydra if not o.startswith("hydra.mode=")]
        own = [f"run_dir={QuotedString(str(job.folder), Quote.double).with_quotes()}", "hydra.mode=RUN"]
        return [sys.executable, "-m", "dlrun", *job.overrides, *hydras, *own, *passed]


def report(jobs: list[Job], folder: Path) -> str:
    """The table of all jobs, and where seeds differ of their means; also written as results.csv."""
    rows = [_row(job) for job in jobs]
    names = list(dict.fromkeys(name for row in rows for name in row["values"]))
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", "overrides", "status", *names, "seconds"])
        for row in rows:
            values = [row["values"].get(n) for n in names]
            writer.writerow([row["job"], " ".join(row["overrides"]), row["status"], *values, row["seconds"]])
    cells = [["job", *names, "seconds", "status"]]
    for row in rows:
        label = f"{row['job']}  {' '.join(row['overrides'])}"
        seconds = f"{row['seconds']:.1f}" if row["seconds"] is not None else "-"
        cells.append([label, *(_cell([row["values"].get(n)]) for n in names), seconds, row["status"]])
    means = over_seeds(rows, names)
    return table(cells) + ("\n\n" + table([["mean +/- std over seeds", *names, "seeds"], *means]) if means else "")


def _row(job: Job) -> dict:
    done = read_summary(job.folder) if job.status == "finished" else {}
    best = done.get("best", {})
    values = {best["metric"]: best["value"]} if best else {}
    values |= {k: v for k, v in done.get("test", {}).items() if isinstance(v, int | float)}
    facts = {"job": job.number, "overrides": job.overrides, "status": job.status, "seconds": done.get("seconds")}
    return {**facts, "values": values}


def over_seeds(rows: list[dict], names: list[str]) -> list[list[str]]:
    """A row for each setting that ran with several seeds."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        setting = " ".join(o for o in row["overrides"] if not o.startswith("seed="))
        groups.setdefault(setting, []).append(row)
    means = []
    for setting, group in groups.items():
        if len(group) > 1:
            cells = [_cell([row["values"].get(n) for row in group]) for n in names]
            means.append([setting or "(all)", *cells, str(sum(bool(row["values"]) for row in group))])
    return means


def _cell(values: list[float | None]) -> str:
    """The mean, with the standard deviation to as many decimals where there are several values."""
    found = [v for v in values if v is not None]
    if not found:
        return "-"
    text = number(mean(found))
    if len(found) < 2 or not all(map(isfinite, found)):  # a diverged run's loss: infinity has no spread
        return text
    decimals = len(text.partition(".")[2])
    return f"{text} +/- " + (number(stdev(found)) if "e" in text else f"{stdev(found):.{decimals}f}")
