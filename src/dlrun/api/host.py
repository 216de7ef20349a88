"""The state of the calling program: a run does not depend on it, and restores it when it ends.

A run seeds the generators of torch, NumPy and Python, and sets torch's options. Its bits are those of the command line,
so it starts from torch's own defaults whatever the program has set, and puts the program's settings back when it ends.
"""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from dlrun.api.words import in_python
from dlrun.config.own_failures import own_failures
from dlrun.errors import UserError
from dlrun.output.terminal import is_of_disk, text_of_disk
from dlrun.paths import require_working_folder

SEED = 67280421310721  # torch's own seed before anyone sets one
RUNNING = threading.RLock()  # torch's generators and options belong to the process: one run at a time


@contextmanager
def as_guest() -> Iterator[None]:
    """A context for a run, or for what builds its objects. A second thread waits until the first one is done.

    Raises UserError where the command line would print an error of the disk, or of the user's own code.
    """
    with RUNNING, in_python(), ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            import numpy

            stack.callback(numpy.random.set_state, numpy.random.get_state())
        stack.callback(_settings() if "torch" in sys.modules else _forget)
        try:
            with own_failures():
                yield
        except OSError as error:
            require_working_folder()
            if not is_of_disk(error):
                raise
            raise UserError(text_of_disk(error)) from error


def _forget() -> None:
    """The program had not imported torch: leave it as after the import."""
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(SEED)


def _settings() -> Callable[[], None]:
    """Set torch's defaults; return a function that puts the program's settings back."""
    import torch

    has_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    random, on_cuda = torch.get_rng_state(), torch.cuda.get_rng_state_all() if has_cuda else None
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, threads, dtype = torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.get_default_dtype()
    device, matmul = torch.get_default_device(), torch.get_float32_matmul_precision()
    has_gradients, modes = torch.is_grad_enabled(), ExitStack()
    modes.enter_context(torch.inference_mode(False))
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            modes.enter_context(torch.autocast(kind, enabled=False))
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_float32_matmul_precision("highest")
    if device.type != "cpu":
        torch.set_default_device(None)

    def put_back() -> None:
        modes.close()
        torch.set_rng_state(random)
        if on_cuda is not None:
            torch.cuda.set_rng_state_all(on_cuda)
        if torch.are_deterministic_algorithms_enabled() != is_deterministic:
            torch.use_deterministic_algorithms(is_deterministic, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(has_gradients)
        torch.set_float32_matmul_precision(matmul)
        if device.type != "cpu":
            torch.set_default_device(device)

    return put_back
