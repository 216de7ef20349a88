"""The common part of data sets of encoded tables: they learn an encoding from the train split."""

import torch

from dlrun.data.on_device import OnDevice
from dlrun.data.table.encode import Encoding
from dlrun.data.table.settings import TableSettings


class Encoded(OnDevice):
    """A data set whose columns become numbers by an encoding, its own or that of a run.

    is_like: whether the encoding is that of a run (`load_like`). keeps_splits: whether its rows are split nevertheless;
    otherwise all of them are the test split.
    """

    settings: TableSettings
    device: torch.device
    encoding: Encoding | None = None
    is_like: bool = False
    keeps_splits: bool = False

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the table and put it on the device."""
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    def load_like(self, fitted: dict, device: torch.device) -> None:
        """Read the table as rows of a run whose data learned `fitted`: all are the test split, or `keeps_splits`."""
        self.restore(fitted, device)
        self.is_like = True
        self.load(device)

    def fitted(self) -> Encoding:
        """Return the encoding (see data/table/encode.py); of a series with the length of a window and the horizon."""
        return self.encoding or {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.encoding, self.device = fitted, device

    def columns_of_texts(self) -> list[str] | str:
        """Return the columns whose values are read as they are written: all of them ("*") for a run's encoding."""
        return "*" if self.is_like else [name for name, kind in self.settings.types.items() if kind == "category"]
