"""A run that is over, rebuilt from its folder alone: config, weights, and what its data learned. Reads no data."""

from pathlib import Path

from dlrun.config.build import build
from dlrun.config.saved import own_config, require_finished
from dlrun.errors import CheckpointError, DataError
from dlrun.output.checkpoint import load_own, tested
from dlrun.train.assemble import assemble
from dlrun.train.state import about, is_same_data

WRONG = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)  # where a state is not this config's


class FinishedRun:
    """The trained task with the weights that the run was tested with, ready to predict; `data` can encode.

    changes: keys of the config that are to be others, by dotted path (trainer.device, trainer.precision).
    Raises UserError where the run is not finished, CheckpointError where its weights are missing or damaged.
    """

    def __init__(self, folder: Path, changes: dict[str, object] | None = None) -> None:
        self.folder, self.summary = folder, require_finished(folder)
        self.config, self.names = own_config(folder, changes)
        self.state, self.weights = _load(folder, self.config, self.summary)
        fitted = self.state.get("data")
        if not isinstance(fitted, dict):
            raise CheckpointError(
                f"{folder}: the checkpoint does not say what the data learned: an older dl-run wrote it\n"
                "  expected one of this version: train it again, from its weights if you like: dl-run init=..."
            )
        try:
            self.trainer, self.data, self.place, self.task, _ = assemble(self.config, fitted)
            self._restore()
        except WRONG as error:
            raise CheckpointError(
                f"{folder}: the weights ({self.weights}) are not what the run's config makes: "
                f"{str(error).splitlines()[0]}\n  expected a folder that nobody changed since the run"
            ) from error

    def _restore(self) -> None:
        if self.weights.startswith("best"):
            self.task.load_best_state(self.state["state_dict"])
        else:
            for name, part in self.task.parts.items():
                part.load_state_dict(self.state["parts"][name])
        self.task.net.eval()

    def load_data(self, download: bool = True) -> object:
        """Read the run's data: train, val and test parts. Raises DataError where it is gone or not what it was.

        download: whether what is not here may be fetched, if the run's config says so.
        """
        section, source = self.config["data"], self.config["data"].get("source")
        if not download and isinstance(source, dict) and "download" in source:
            section = section | {"source": source | {"download": False}}
        data = build(section)  # one that knows nothing yet: what it learns now is compared
        data.load(self.place.device, self.place.channels_last)
        if not is_same_data(self.state, about(data)):
            raise DataError(
                f"{self.folder}: the data is not what it was: its parts have other samples, statistics, words or "
                "classes\n"
                "  expected the data that the run was trained on"
            )
        self.data = data
        return self.data


def _load(folder: Path, config: dict, summary: dict) -> tuple[dict, str]:
    """The checkpoint that the run was tested with, and which one that is: the best epoch's, where there was one."""
    now, kept = tested(folder / "checkpoints", summary, config["trainer"]["test"])
    best = summary.get("best")
    epoch = best.get("epoch") if now.stem == "best" and isinstance(best, dict) else summary.get("epochs")
    return load_own(kept if kept.exists() else now, summary.get("id")), f"{now.stem}, epoch {epoch}"
