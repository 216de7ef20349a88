"""A sweep as an object: its jobs, its best job and its report, read from its folder."""

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.api.run import Run
from dlrun.errors import UserError, first_line
from dlrun.output.folders import within
from dlrun.paths import read_whole

if TYPE_CHECKING:
    import polars


class Sweep:
    """A sweep or a search. results: the content of results.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def results(self) -> dict[str, Any]:
        """Goals, the best jobs, and all jobs with their overrides, status and values."""
        try:
            content = json.loads(read_whole(self.folder / "results.json"))
        except (OSError, ValueError):
            raise UserError(
                f"{self.folder}: its results.json is missing or damaged\n  expected a sweep's folder"
            ) from None
        return content if isinstance(content, dict) else {}

    @property
    def jobs(self) -> "polars.DataFrame":
        """A row per job: its number, overrides, status and the values of the goals."""
        import polars

        try:
            return polars.read_csv(self.folder / "results.csv", infer_schema_length=None)
        except (OSError, polars.exceptions.PolarsError) as error:
            raise UserError(
                f"{self.folder}: no results.csv: {first_line(error)}\n  expected a sweep's folder"
            ) from None

    @property
    def runs(self) -> list[Run]:
        """The runs of the jobs that have begun, in the order of the jobs."""
        folders = [within(self.folder, str(job["number"])) for job in self.results["jobs"]]
        return [Run(folder) for folder in folders if (folder / ".hydra" / "config.yaml").is_file()]

    @property
    def best(self) -> Run:
        """The best run; of several goals, one of the best. Raises UserError if no job has finished."""
        if not self.results["best"]:
            raise UserError(f"{self.folder}: no job has finished\n  expected one; sweep.results has the jobs' errors")
        return Run(within(self.folder, str(self.results["best"][0]["job"])))

    def __repr__(self) -> str:
        try:
            jobs = self.results.get("jobs")
        except UserError:  # a sweep that has just begun, or a stranger's folder
            jobs = None
        return f"Sweep({str(self.folder)!r}, {f'{len(jobs)} jobs' if isinstance(jobs, list) else 'no results'})"

    def _repr_html_(self) -> str:
        try:
            jobs = self.jobs._repr_html_()
        except UserError:  # a sweep that has just begun, or a stranger's folder
            jobs = ""
        return f"<p>{escape(repr(self))}</p>{jobs}"
