"""The loss of a supervised task: which one of this package fits the data, or a function of the user's own."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError, raised
from dlrun.tasks import losses
from dlrun.tasks.targets import Learnable

Loss = Callable[..., Tensor]  # (outputs, targets, reduction="mean") -> loss
TWO = ("bce", "focal", "mse_one_hot", "hinge", "perceptron")
SEVERAL = ("cross_entropy", "focal", "mse_one_hot", "hinge")
REAL = ("mse", "mae", "huber")


def make_loss(
    loss: "str | partial[Tensor] | Callable[..., Tensor]", spec: Learnable, label_smoothing: float = 0.0
) -> Loss:
    """Return the loss. `auto` is cross-entropy, its binary form, or the mean squared error.

    loss: `auto`, the function with its keys, or an object of the user's own class. Raises UserError if it
    does not fit the data.
    """
    fitting = TWO if spec.classes == 2 else SEVERAL if spec.classes else REAL
    call = partial(getattr(losses, fitting[0])) if loss == "auto" else loss
    if isinstance(call, str):
        call = partial(getattr(losses, call))
    name, module = _name(call)
    is_own = module != losses.__name__
    if not is_own and name not in fitting:
        kind = "two classes" if spec.classes == 2 else f"{spec.classes} classes" if spec.classes else "real targets"
        raise UserError(f"task.loss={name} does not fit data with {kind}: expected one of auto, {', '.join(fitting)}")
    smoothed = {"cross_entropy": _smooth_cross_entropy, "bce": _smooth_bce}
    if label_smoothing and (is_own or name not in smoothed):
        raise UserError(f"task.label_smoothing={label_smoothing} with task.loss={name}: expected 0 for this loss")
    if label_smoothing:
        return partial(smoothed[name], amount=label_smoothing)
    return _own(call, spec) if is_own else call


def gives_probabilities(loss: Loss) -> bool:
    """Whether the sigmoid or softmax of outputs that learn by this loss are probabilities, and not only scores."""
    return _name(loss)[0] not in ("hinge", "perceptron")


def _name(call: Loss) -> tuple[str, str]:
    """Return the name and module of a function with its keys, or of an object's class."""
    named = call.func if isinstance(call, partial) else type(call)
    return named.__name__, named.__module__


def _own(call: Loss, spec: Learnable) -> Loss:
    """Return the user's own as a loss with `reduction`. Raises UserError if it fails on two samples."""
    name = ".".join(reversed(_name(call)))
    if isinstance(call, nn.Module) and any(True for _ in (*call.parameters(), *call.buffers())):
        raise UserError(
            f"task.loss={name} has parameters or buffers, which no optimizer changes and no checkpoint holds\n"
            "  expected numbers as keys; a tensor as out.new_tensor(numbers) where it is called"
        )
    called = call.forward if isinstance(call, nn.Module) and type(call).__call__ is nn.Module.__call__ else call
    own = partial(_checked, call, name, "reduction" in inspect.signature(called).parameters)
    out = torch.zeros(2, spec.outputs, requires_grad=True)
    y = torch.zeros(2, dtype=torch.int64) if spec.classes else torch.zeros(2, spec.outputs)
    try:
        own(out, y, reduction="none", mean_allowed=True)
    except UserError:
        raise
    except Exception as error:  # the user's code raises anything
        raise UserError(f"task.loss={name} raised {raised(error)}\n{_expected(out, y)}") from error
    return own


def _checked(
    call: Loss,
    name: str,
    takes_reduction: bool,
    out: Tensor,
    y: Tensor,
    reduction: str = "mean",
    mean_allowed: bool = False,
) -> Tensor:
    """The user's own loss, reduced. Raises UserError if it returned anything but losses of these outputs.

    mean_allowed: return a mean for reduction="none", too.
    """
    values = call(out, y, reduction=reduction) if takes_reduction else call(out, y)
    if (
        not isinstance(values, Tensor)
        or values.shape not in ((), y.shape[:1], out.shape if y.dim() > 1 else ())
        or (out.requires_grad and torch.is_grad_enabled() and not values.requires_grad)
    ):
        kind = f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        constant = (
            "" if not isinstance(values, Tensor) or values.requires_grad else " that does not depend on the outputs"
        )
        raise UserError(f"task.loss={name} returned {kind}{constant}\n{_expected(out, y)}")
    if reduction == "none" and not values.dim() and not mean_allowed:
        raise UserError(
            f"task.loss={name} returns a mean, and data.weights or task.class_weights weigh samples\n"
            "  expected the losses of the samples (B,)"
        )
    return values.mean() if reduction == "mean" and values.dim() else values


def _expected(out: Tensor, y: Tensor) -> str:
    of_samples = tuple(y.shape) if y.dim() > 1 else (len(y),)
    return (
        f"  expected a loss of outputs {tuple(out.shape)} and targets {tuple(y.shape)} of type {str(y.dtype)[6:]}: a "
        f"tensor that depends on the outputs, of the samples {of_samples} or their mean ()"
    )


def _smooth_cross_entropy(out: Tensor, y: Tensor, reduction: str = "mean", *, amount: float) -> Tensor:
    return F.cross_entropy(out, y, label_smoothing=amount, reduction=reduction)


def _smooth_bce(out: Tensor, y: Tensor, reduction: str = "mean", *, amount: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(out.squeeze(1), y * (1 - amount) + amount / 2, reduction=reduction)
