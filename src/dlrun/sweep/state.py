"""The state of a sweep: sweep.json in its folder, replaced as a whole and changed by one process at a time."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import dlrun
from dlrun.errors import UserError, first_line, printable
from dlrun.output.folders import within
from dlrun.output.written import write_whole
from dlrun.overrides import key_of
from dlrun.paths import read_whole
from dlrun.sweep.damage import check_facts, check_job
from dlrun.sweep.job import Job
from dlrun.sweep.workers import cannot_write

FORMAT = 1


class State:
    """The facts and jobs of a sweep.

    facts: `command`, `flags` and `cwd` of the start; `arguments`: the overrides that define the space, including those
    of an experiment; `goals`: the metrics to optimise with "max" or "min", empty until a job has reported them;
    `total`: the number of jobs, of which `elsewhere` are in other folders that use the same database.
    worker: the name of this process.
    """

    def __init__(self, folder: Path, facts: dict, jobs: list[Job]) -> None:
        self.folder, self.facts, self.jobs = folder, facts, jobs
        self.worker = ""  # until it works on the sweep

    @classmethod
    def new(cls, folder: Path, command: dict[str, object], jobs: list[Job], total: int, goals: list) -> "State":
        """Return the state of a new sweep with a new id and study name."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        facts = {"version": dlrun.__version__, "started": now, "cwd": os.getcwd(), "owner": owner()}
        facts["id"] = uuid4().hex
        facts["study"] = f"dl-run {folder.parent.name}/{folder.name} {os.getpid()}@{socket.gethostname()}"
        return cls(folder, {**facts, **command, "goals": goals, "total": total, "elsewhere": 0}, jobs)

    @property
    def total(self) -> int:
        """The number of jobs in this folder, existing and still to come."""
        return max(self.facts["total"] - self.facts["elsewhere"], len(self.jobs))

    def others(self) -> list[Job]:
        """Return the jobs that other processes run."""
        return [job for job in self.jobs if job.status == "running" and job.worker != self.worker]

    def resize(self, trials: int) -> None:
        """Set another number of trials, also in the command that resumes the sweep."""
        command = [override for override in self.facts["command"] if key_of(override) != "sweep.trials"]
        self.facts |= {"total": trials, "command": [*command, f"sweep.trials={trials}"]}

    def run_folder(self, job: Job) -> Path:
        return within(self.folder, str(job.number))

    def log(self, job: Job) -> Path:
        return within(self.folder, "logs", f"{job.number}.log")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the sweep: read the changes of other processes first, and save those of the block at its end."""
        from filelock import FileLock

        lock = FileLock(self.folder / ".changing")
        try:
            lock.acquire()
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        try:
            self.read()
            yield
            self.save()
        finally:
            lock.release()

    def read(self) -> None:
        """Read the state from disk; known jobs stay the same objects."""
        saved = load_state(self.folder)
        self.facts.clear()
        self.facts.update(saved.facts)
        for job, now in zip(self.jobs, saved.jobs, strict=False):
            vars(job).update(vars(now))
        self.jobs += saved.jobs[len(self.jobs) :]

    def save(self) -> None:
        """Write the state. Raises UserError if that fails."""
        try:
            self.write()
        except OSError as error:
            raise cannot_write(self.folder, error) from None

    def write(self) -> None:
        """Write the state with a line per job; it is on disk when this returns."""
        head = json.dumps({"format": FORMAT, **self.facts, "jobs": []}, indent=1)
        lines = ",\n  ".join(json.dumps(asdict(job)) for job in self.jobs)
        text = head[: head.rindex("[]")] + f"[\n  {lines}\n ]\n}}\n"
        write_whole(self.folder / "sweep.json", text, durable=True)


def shared(jobs: list[Job]) -> list[str]:
    """Return the overrides that all jobs have; none for a single job."""
    return [o for o in jobs[0].overrides if all(o in job.overrides for job in jobs)] if len(jobs) > 1 else []


def own_overrides(job: Job, common: list[str]) -> str:
    """Return the overrides of a job that are not common to all."""
    return " ".join(override for override in job.overrides if override not in common)


def owner() -> dict:
    """Return the process id and host of this process."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def load_state(folder: Path) -> State:
    """Read sweep.json. Raises UserError if the folder is not a sweep's or the file is damaged."""
    path = folder / "sweep.json"
    try:
        facts = json.loads(read_whole(path))
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        jobs = [Job(**fields) for fields in facts.pop("jobs")]
        del facts["format"]
        check_facts(facts)
        for number, job in enumerate(jobs):
            check_job(job, number)
    except OSError as error:
        raise UserError(
            f"{folder} is not a sweep's folder: cannot read sweep.json: {error.strerror}\n"
            "  expected the folder that dl-run -m printed when it started, or sweep.resume=last"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged: {first_line(error)}\n"
            "  expected the file as dl-run wrote it; restore it (the jobs' folders and results.csv are untouched)"
        ) from None
    return State(folder, facts, jobs)


def find_sweep(which: str, output_dir: str, key: str = "sweep.resume") -> Path:
    """Return the folder of a sweep; `last` is the most recently started one. Raises UserError if there is none."""
    if which == "last":
        started = [path for pattern in ("*", "*/*") for path in Path(output_dir).glob(f"{pattern}/multirun.yaml")]
        if not started:
            where = Path(output_dir).resolve()
            raise UserError(
                f"{key}=last: there is no sweep under {where}\n  expected one; output_dir=... names another folder"
            )
        return max(started, key=lambda path: path.stat().st_mtime).parent
    folder = Path(which)
    if not which or not (folder / "sweep.json").is_file():
        is_run = (folder / ".hydra" / "config.yaml").is_file()
        reason = "no such folder" if not folder.exists() else "it has no sweep.json"
        raise UserError(
            f"{key}={which}: this folder is not a sweep's: {'it is a single run' if is_run else reason}\n"
            "  expected "
            + (f"dl-run resume={which} for a run" if is_run else "the folder that dl-run -m printed when it started")
            + f", or {key}=last"
        )
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a sweep for this process. Raises UserError with the name of the process that already runs it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        who = load_state(folder).facts["owner"]
        who = printable(f"process {who.get('pid')} on host {who.get('host')}")
        raise UserError(
            f"the sweep in {folder} is in use: {who} runs it\n"
            "  wait for it, or stop it (Ctrl-C there, or kill): it loses nothing and can be resumed"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to the sweep's folder {folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def differences(before: object, now: object, path: str = "") -> list[str]:
    """List the differences between two plain configs, a line per key."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        missing = "(missing)"
        return [
            line
            for key in keys
            for line in differences(before.get(key, missing), now.get(key, missing), f"{path}.{key}" if path else key)
        ]
    return [] if before == now else [f"{path}: {_shown(before)} at its start, now {_shown(now)}"]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
