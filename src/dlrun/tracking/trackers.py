"""The trackers, behind one interface. Their packages are imported only where one starts. No torch.

A tracker is given rows of metrics with their step, images, and the results, in this order. `run_id` identifies the run
there: `start` returns it and gets it again when the run is resumed.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from typing import Any, Literal, Protocol

from dlrun.types import Name, NonNegative

WAIT = 3600.0  # seconds that W&B waits for its own process: on busy cores the trackers have little time
ANSWER = 10.0  # seconds in which a server must answer
MLFLOW_BATCH = 1000  # metrics that MLflow takes in one call
Rows = list[tuple[int, dict[str, float]]]  # steps with their metrics


@dataclass
class Tracked:
    """The run that is tracked. id: random, of the run. config: flat, with dotted keys. base: the folder of all runs."""

    folder: Path
    id: str
    name: str
    config: dict[str, Any]
    base: Path


class Tracker(Protocol):
    """The interface of a tracker. artifacts: whether it keeps the run's best checkpoint, config and summary, too."""

    artifacts: bool

    def reach(self) -> None:
        """Raise ConnectionError if there is a server and it does not answer."""

    def start(self, run: Tracked, run_id: str | None) -> str:
        """Open the run, new or, with its id there, again. Return that id."""

    def log(self, rows: Rows) -> None:
        """Add the metrics of some steps."""

    def finish(self, results: dict[str, Any], images: list[Path], files: list[Path], step: int, status: str) -> None:
        """Add results, images and files (if `artifacts`), and close the run. status: finished, or why it ended."""


def _filled(artifact: Any, files: list[Path]) -> Any:
    """Add files to an artifact of W&B or Trackio, under their own names."""
    for path in files:
        artifact.add_file(str(path), name=path.name)
    return artifact


def require_answer(url: str) -> None:
    """Raise ConnectionError if no server answers at an http or https URL; any answer will do, an error too."""
    if not url.startswith(("http://", "https://")):
        return
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        urlopen(url, timeout=ANSWER).close()
    except HTTPError as error:
        error.close()
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, SSLError):  # the tracker's package may have certificates of its own
            raise ConnectionError(f"{url} does not answer: {reason}") from None


class Trackio:
    """Trackio: a local SQLite database under TRACKIO_DIR (see `trackio show`)."""

    def __init__(self, *, project: Name, artifacts: bool, wait_seconds: NonNegative) -> None:
        self.project, self.artifacts, self.wait_seconds = project, artifacts, wait_seconds

    def reach(self) -> None:
        """Do nothing: there is no server."""

    def start(self, run: Tracked, run_id: str | None) -> str:
        """Open the run by its name."""
        import trackio

        self.trackio, name = trackio, f"{run.name}-{run.id[:6]}"
        self.artifact = f"dl-run-{run.id}"
        options = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self.run = trackio.init(self.project, name=name, config=run.config, resume="allow", **options)
        return name

    def log(self, rows: Rows) -> None:
        """Add the metrics of some steps."""
        for step, metrics in rows:
            self.run.log(metrics, step=step)

    def finish(self, results: dict[str, Any], images: list[Path], files: list[Path], step: int, status: str) -> None:
        """Add results and images as the last step, and the files as an artifact."""
        plots = {f"plots/{path.stem}": self.trackio.Image(str(path)) for path in images if path.suffix == ".png"}
        numbers = {name: value for name, value in results.items() if isinstance(value, int | float)}
        if plots or numbers:
            self.run.log({**numbers, **plots}, step=step)
        if files:
            self.run.log_artifact(_filled(self.trackio.Artifact(self.artifact, type="model"), files))
        self.run.finish()


class Wandb:
    """Weights & Biases: offline in wandb/ under output_dir, or online."""

    def __init__(
        self,
        *,
        project: Name,
        entity: str | None,
        mode: Literal["offline", "online"],
        artifacts: bool,
        wait_seconds: NonNegative,
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode
        self.artifacts, self.wait_seconds = artifacts, wait_seconds

    def reach(self) -> None:
        """Raise ConnectionError if the server that W&B's settings name does not answer: W&B would wait for it."""
        if self.mode == "online":
            import wandb

            require_answer(wandb.setup().settings.base_url)

    def start(self, run: Tracked, run_id: str | None) -> str:
        """Open the run by its id."""
        import wandb

        self.wandb, self.artifact = wandb, f"dl-run-{run.id}"
        quiet = {"console": "off", "silent": True, "disable_git": True, "x_disable_stats": True}
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.id,
            name=run.name,
            config=run.config,
            dir=run.base,  # not the run's folder: W&B writes links, and a run's folder must have none
            mode=self.mode,
            resume="allow",
            settings=wandb.Settings(**quiet, init_timeout=WAIT, x_service_wait=WAIT),
        )
        return run.id

    def log(self, rows: Rows) -> None:
        """Add the metrics of some steps."""
        for step, metrics in rows:
            self.run.log(metrics, step=step)

    def finish(self, results: dict[str, Any], images: list[Path], files: list[Path], step: int, status: str) -> None:
        """Add images as the last step, the results as the run's summary, and the files as an artifact."""
        if images:
            self.run.log({f"plots/{path.stem}": self.wandb.Image(str(path)) for path in images}, step=step)
        self.run.summary.update(results)
        if files:
            self.run.log_artifact(_filled(self.wandb.Artifact(self.artifact, type="model"), files))
        self.run.finish(exit_code=0 if status in ("finished", "stopped") else 1)


class Mlflow:
    """MLflow: a SQLite database under output_dir, or a server."""

    def __init__(self, *, experiment: Name, uri: str | None, artifacts: bool, wait_seconds: NonNegative) -> None:
        self.experiment, self.uri, self.artifacts, self.wait_seconds = experiment, uri, artifacts, wait_seconds

    def reach(self) -> None:
        """Raise ConnectionError if the server does not answer. MLflow tries for minutes."""
        require_answer(self.uri or "")

    def start(self, run: Tracked, run_id: str | None) -> str:
        """Open the run by MLflow's own id, which is kept in the run's folder."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        self.client, self.metric = MlflowClient(self.uri or f"sqlite:///{run.base.resolve()}/mlflow.db"), Metric
        if run_id is not None:
            self.client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
            return run_id
        existing = self.client.get_experiment_by_name(self.experiment)
        if existing:
            experiment = existing.experiment_id
        else:
            place = None if self.uri else (run.base.resolve() / "mlflow").as_uri()
            experiment = self.client.create_experiment(self.experiment, artifact_location=place)
        self.run_id = str(self.client.create_run(experiment, run_name=run.name).info.run_id)
        params = [Param(name, str(value)[:6000]) for name, value in run.config.items()]
        tags = [RunTag("dl-run.id", run.id), RunTag("dl-run.folder", str(run.folder))]
        self.client.log_batch(self.run_id, params=params, tags=tags)
        return self.run_id

    def log(self, rows: Rows) -> None:
        """Add the metrics of some steps, as many at once as MLflow takes: each call is a transaction."""
        now = int(1000 * time.time())
        points = [self.metric(name, value, now, step) for step, metrics in rows for name, value in metrics.items()]
        for first in range(0, len(points), MLFLOW_BATCH):
            self.client.log_batch(self.run_id, metrics=points[first : first + MLFLOW_BATCH])

    def finish(self, results: dict[str, Any], images: list[Path], files: list[Path], step: int, status: str) -> None:
        """Add the results as metrics, the images and files as artifacts."""
        self.log([(step, {name: float(v) for name, v in results.items() if isinstance(v, int | float)})])
        for path in images:
            self.client.log_artifact(self.run_id, str(path), "plots")
        for path in files:
            self.client.log_artifact(self.run_id, str(path), "run")
        ends = {"finished": "FINISHED", "stopped": "KILLED", "killed": "KILLED"}
        self.client.set_terminated(self.run_id, ends.get(status, "FAILED"))
