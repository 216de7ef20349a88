"""Rebuild a finished run from its folder alone: config, weights, and fitted values. Reads no data."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dlrun.config.build import build
from dlrun.config.missing_code import STAND_INS
from dlrun.config.saved import own_config, require_finished, where_moved
from dlrun.data.base import Data, SampleData
from dlrun.errors import CheckpointError, DataError, first_line
from dlrun.optim.update import Update
from dlrun.output.checkpoint import load_of_run
from dlrun.output.folders import tested_paths
from dlrun.train.assemble import assemble
from dlrun.train.data_state import data_state, is_same_data
from dlrun.train.state import STATE_ERRORS

if TYPE_CHECKING:
    from dlrun.data.table.table_file import TableFile


class FinishedRun:
    """A trained task with the weights that the run was tested with, ready to predict; `data` can encode new inputs.

    changes: new values for keys of the config, by dotted path (trainer.device, trainer.precision).
    Raises UserError if the run is not finished, CheckpointError if its weights are missing or damaged.
    """

    def __init__(self, folder: Path, changes: dict[str, object] | None = None) -> None:
        self.folder, self.summary = folder, require_finished(folder)
        self.config, self.names = own_config(folder, changes)
        self.state, self.weights = _load(folder, self.config, self.summary)
        fitted = self.state.get("data")
        if not isinstance(fitted, dict):
            raise CheckpointError(
                f"{folder}: the checkpoint was written by an older dl-run and lacks the values fitted on the train "
                "split\n  expected one of this version: train again, from these weights if you like: dl-run init=..."
            )
        try:
            self.trainer, self.data, self.device, self.task, _ = assemble(self.config, fitted)
            self._restore()
        except STATE_ERRORS as error:
            raise CheckpointError(
                f"{folder}: the weights ({self.weights}) do not fit the run's config: "
                f"{first_line(error)}\n  expected a folder that was not changed since the run"
            ) from error

    def _restore(self) -> None:
        if self.weights.startswith("best"):
            self.task.load_best_state(self.state["state_dict"])
        else:
            has_stand_in = self.config["optimizer"] == STAND_INS["optimizer"]  # its own may be gone
            for name, component in self.task.components.items():
                state = self.state["components"][name]
                if has_stand_in and isinstance(component, Update):
                    component.load_average(state)
                else:
                    component.load_state_dict(state)
        self.task.load_extra_state(self.state.get("fitted", {}))
        self.task.net.eval()

    @property
    def sample_data(self) -> SampleData:
        """The data of a run that learns from samples."""
        return cast(SampleData, self.data)

    @property
    def table_data(self) -> "TableFile":
        """The data of a run that learns from the columns of a table (spec.Columns)."""
        return cast("TableFile", self.data)

    def load_data(self, download: bool = True, memory: Mapping[str, object] | None = None) -> Data:
        """Read the run's data with all splits. Raises DataError if it is missing or has changed.

        download: whether missing files may be downloaded, if the run's config allows it. memory: values of the data
        section that are in the program's memory.
        """
        section, source = self.config["data"] | dict(memory or {}), self.config["data"].get("source")
        if not download and isinstance(source, dict) and "download" in source:
            section = section | {"source": source | {"download": False}}
        data = build(section)  # a new object, so that what it learns now can be compared
        try:
            data.load(self.device.torch_device, self.device.channels_last)
        except DataError as error:
            raise where_moved(error, self.folder, self.config) from None
        if not is_same_data(self.state, data_state(data)):
            raise DataError(
                f"{self.folder}: the data has changed: its splits have other samples, statistics, words or classes\n"
                "  expected the data that the run was trained on"
            )
        self.data = data
        return self.data


def _load(folder: Path, config: dict, summary: dict) -> tuple[dict, str]:
    """The checkpoint that the run was tested with, and its name for messages ("best, epoch 3")."""
    original, copy = tested_paths(folder / "checkpoints", summary, config["trainer"]["test"])
    best = summary.get("best")
    epoch = best.get("epoch") if original.stem == "best" and isinstance(best, dict) else summary.get("epochs")
    return load_of_run(copy if copy.exists() else original, summary.get("id")), f"{original.stem}, epoch {epoch}"
