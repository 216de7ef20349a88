"""What a sweep prints of its jobs beside their metrics: the tables that their reports end with."""

from typing import TypeGuard

from dlrun.output.console import table, wrapped
from dlrun.output.folders import read_summary
from dlrun.overrides import key_of
from dlrun.sweep.job import Job
from dlrun.sweep.page import as_number
from dlrun.sweep.state import State, own_overrides, shared

SHOWN = 12  # most jobs whose own tables are printed


def own_tables(state: State, width: int) -> str:
    """The tables that the jobs' own reports end with, each below what tells the job from the others, wrapped."""
    common = shared(state.jobs)
    blocks = []
    for job in state.jobs:
        rows = read_summary(state.run_folder(job)).get("table") if job.status == "finished" else None
        if is_table(rows):
            label = wrapped(f"job {job.number}  {own_overrides(job, common)}".rstrip(), width - 1, 2)
            blocks.append("\n".join([*label, table(rows)]))
    more = [f"and {len(blocks) - SHOWN} more: table in each job's summary.json"] if len(blocks) > SHOWN else []
    return "\n\n".join(blocks[:SHOWN] + more)


def is_table(rows: object) -> TypeGuard[list[list[str]]]:
    """Whether a value of a summary is a table: rows of as many texts."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and bool(rows[0])
        and all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
        and all(isinstance(cell, str) for row in rows for cell in row)
    )


def have_one_problem(jobs: list[Job]) -> bool:
    """Whether the jobs solve the same problem: not if words choose other data, such as another function, by job."""
    settings = [
        tuple(o for o in job.overrides if key_of(o) == "data" or key_of(o).startswith("data.source.") and is_word(o))
        for job in jobs
    ]
    return len(set(settings)) < 2


def is_word(override: str) -> bool:
    """Whether the value of an override is no number."""
    return as_number(override.partition("=")[2]) is None
