"""Read a number from the device on the host without making the device wait."""

from collections.abc import Callable

import torch
from torch import Tensor


class AsyncScalar:
    """Reads a loss on the host without making the device wait.

    On CUDA the copy starts before the backward pass and is read after that was queued, so the device keeps working.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            self.host, self.event = torch.empty((), pin_memory=True), torch.cuda.Event()

    def start(self, loss: Tensor) -> Callable[[], float]:
        """Start the copy; return a function that waits for it and returns the value."""
        if not self.cuda:
            return loss.item
        self.host.copy_(loss, non_blocking=True)
        self.event.record()
        return self._read

    def _read(self) -> float:
        self.event.synchronize()
        return self.host.item()
