"""The optional members of a network: each one that it has is used, wherever its class is defined."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from torch import Tensor, nn

from dlrun.output.report import Report


@dataclass(frozen=True)
class Options:
    """The optional members of a network, by their names there, each with the value of a network without it.

    description: text for the header, after the number of parameters, such as "; 27 of 9,996 words have a vector".
    report: returns the network's own results at the end of a run.
    auxiliary: the weight of the losses of the auxiliary heads, if it returns a tuple of outputs in training.
    BACKBONE: name prefixes of the layers that other networks share; `init=` loads these whatever head follows them.
    observe: adds observations (B, features) to a policy's running statistics.
    init_from_data: computes a new network's constant parts, such as whitening filters, from train inputs.
    num_init_samples: number of train inputs that `init_from_data` takes; 0 if there is nothing to compute.
    """

    description: str = ""
    report: Callable[[], Report] | None = None
    auxiliary: float = 0.0
    BACKBONE: tuple[str, ...] = ()
    observe: Callable[[Tensor], None] | None = None
    init_from_data: Callable[[Tensor], None] | None = None
    num_init_samples: int = 0


def options_of(net: nn.Module) -> Options:
    """Return the optional members that a network has."""
    names = [field.name for field in fields(Options)]
    return Options(**{name: getattr(net, name) for name in names if hasattr(net, name)})
