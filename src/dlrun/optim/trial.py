"""Try the user's own optimizer and schedule without data, so that a broken one is refused before data is read.

An optimizer of torch's is tried, too: LBFGS and SparseAdam cannot take a step here.
"""

from functools import partial
from math import isfinite
from numbers import Real

import torch
from torch import nn
from torch.optim import Optimizer

from dlrun.clock import Clock
from dlrun.errors import UserError, first_line, raised
from dlrun.optim.kinds import make_optimizer
from dlrun.system.torch_internals import plain_step

OWN = "  expected a torch.optim.Optimizer whose groups have an lr and whose step needs no closure"


def try_optimizer(make: "partial[Optimizer]", kinds: dict[str, dict[str, float]] | None, device: torch.device) -> None:
    """Make the optimizer for a layer of 3 x 2 weights and take two steps. kinds: see Update. Raises UserError.

    device: of the run, as a setting such as capturable holds on some only.
    """
    name, is_torch = f"optimizer={make.func.__module__}.{make.func.__name__}", make.func.__module__.startswith("torch.")
    with torch.random.fork_rng(devices=[]):  # the run's own numbers stay as they are
        net, optimizer = nn.Linear(3, 2).to(device), None
        try:
            optimizer, _ = make_optimizer(make, net, [(1.0, list(net.parameters()))], kinds)
            if not isinstance(optimizer, Optimizer):
                raise UserError(f"{name} returns {optimizer!r}\n{OWN}")
            if "lr" not in optimizer.defaults or not all("lr" in group for group in optimizer.param_groups):
                raise UserError(f"{name} has no learning rate\n{OWN}")
            for _ in range(2):
                for param in net.parameters():
                    param.grad = torch.full_like(param, 0.1)
                with torch.no_grad():
                    plain_step(optimizer)()
            optimizer.load_state_dict(optimizer.state_dict())
        except UserError:
            raise
        except Exception as error:
            if is_torch and optimizer is None:
                return  # Update reports the settings that it refuses
            why = f"{type(error).__name__}: {first_line(error)}" if is_torch else raised(error)
            raise UserError(f"{name} raised {why}\n{OWN}") from error
        if not all(param.isfinite().all() for param in net.parameters()):
            raise UserError(f"{name} made weights infinite or NaN in two steps with gradients of 0.1\n{OWN}")


def try_schedule(schedule: "partial[float]", epochs: int) -> None:
    """Call the schedule at the start, in the middle and at the last step of a run. Raises UserError if that fails."""
    for step in (0, 50 * epochs, 100 * epochs - 1):
        factor(schedule, Clock(0, epochs, 100, step=step, epoch=step // 100))


def factor(schedule: "partial[float]", clock: Clock) -> float:
    """Return the factor of a schedule of the user's own. Raises UserError if it fails or is no number of at least 0."""
    name = f"schedule={schedule.func.__module__}.{schedule.func.__name__}"
    expected = "  expected a number of at least 0, the factor on the learning rate"
    try:
        value = schedule(clock)
    except Exception as error:
        raise UserError(f"{name} raised {raised(error)}\n{expected}") from error
    if not isinstance(value, Real) or not isfinite(value) or value < 0:
        raise UserError(f"{name} returned {value!r} when {clock.fraction:.2g} of the run is done\n{expected}")
    return float(value)
