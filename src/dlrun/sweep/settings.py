"""The settings of a sweep, its section of the config: how jobs are run and how their points are chosen.

The files in configs/sweep describe every key with its unit.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from dlrun.types import Count, Few, Fraction, Index, Positive, Processes, Range, Seed

# Keys that may change when a sweep is joined or resumed: how the jobs are run, not which jobs.
JOINABLE = ("jobs", "threads", "gpus", "jobs_per_gpu", "job_timeout")
RESUMABLE = (*JOINABLE, "retry", "trials")


@dataclass(frozen=True)
class Grid:
    """All combinations of listed values."""

    jobs: Processes
    threads: Few | None
    gpus: Literal["auto"] | list[Index | str]
    jobs_per_gpu: Few
    stack: Literal["auto", "off"] | Annotated[int, Range(2, 1000)]
    job_timeout: Positive | None
    resume: str | None
    join: str | None
    retry: Literal["failed"] | None


@dataclass(frozen=True)
class Search:
    """Points that Optuna chooses one after the other from the results of earlier ones."""

    jobs: Processes
    threads: Few | None
    gpus: Literal["auto"] | list[Index | str]
    jobs_per_gpu: Few
    stack: Literal["auto", "off"] | Annotated[int, Range(2, 1000)]
    job_timeout: Positive | None
    resume: str | None
    join: str | None
    retry: Literal["failed"] | None
    trials: Count
    sampler: Literal["tpe", "random", "grid", "cmaes", "qmc"]
    pruner: Literal["none", "median", "percentile", "asha", "hyperband"]
    pruner_startup: Index
    pruner_warmup_epochs: Index
    percentile: Annotated[float, Range(0, 100)]
    reduction: Annotated[int, Range(2, 1000)]
    seed: Seed
    goal: str | list[str] | None
    direction: Literal["max", "min"] | list[Literal["max", "min"]] | None
    storage: str | None
    space: dict[str, object]


@dataclass(frozen=True)
class Population:
    """Jobs that train as one stack and exchange weights and hyper-parameters between epochs (sweep/population.py)."""

    threads: Few | None
    gpus: Literal["auto"] | list[Index | str]
    resume: str | None
    retry: Literal["failed"] | None
    population: Annotated[int, Range(2, 1000)]
    ready_epochs: Few
    quantile: Annotated[float, Range(0, 0.5, open_low=True)]
    factors: list[Positive]
    resample: Fraction
    seed: Seed
    space: dict[str, object]

    jobs = jobs_per_gpu = 1  # processes: all members are in one
    job_timeout = join = None


Settings = Grid | Search | Population
