"""One optimizer with everything that belongs to its step: backward, loss scaling, clipping, schedule, averaged weights.

`Update.step` takes a loss to new weights. Read it first.
"""

from collections.abc import Callable
from copy import deepcopy
from math import isfinite

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrun.clock import Clock
from dlrun.errors import Diverged, UserError, check_state
from dlrun.optim.buffers import BufferSnapshot, copy_all
from dlrun.optim.check_state import check_shapes
from dlrun.optim.clipping import clip_gradients, tensor_norms
from dlrun.optim.kinds import make_optimizer
from dlrun.system.async_scalar import AsyncScalar
from dlrun.system.distributed import ALONE, Distributed
from dlrun.system.torch_internals import check_overflow_first, plain_step

SCALARS = {"factor": int | float} | dict.fromkeys(("last_loss", "first_loss", "peak"), float)  # attributes to save
SCALARS |= dict.fromkeys(("skipped", "averaged"), int)
EARLY = 100  # number of first steps that are watched for an exploding loss


class Update:
    """Turns a loss into a step of the optimizer.

    net: the network to train. optimizer: makes the optimizer from parameter groups. schedule: returns the factor on lr
    at a time. clip: limits by value, by each tensor's norm, and by global norm; None for no limit. ema: decay of the
    averaged weights; 0 for none. on_nan: what to do if a loss is not finite: "stop" raises Diverged; "skip" undoes and
    counts the step, also if a gradient is not finite. precision: "fp16" scales the loss. groups: (factor on lr,
    parameters) for all parameters that may ever learn; None for all of the net's. Parameters without a gradient are not
    changed and have no optimizer state. kinds: settings of the optimizer for kinds of parameters (optim/kinds.py); None
    if the optimizer treats all alike. dist: the processes to average gradients over. buffers: a snapshot that several
    updates of one task share.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[Clock], float],
        clip: tuple[float | None, float | None, float | None],
        ema: float,
        on_nan: str,
        precision: str,
        groups: list[tuple[float, list[nn.Parameter]]] | None = None,
        kinds: dict[str, dict[str, float]] | None = None,
        dist: Distributed = ALONE,
        buffers: BufferSnapshot | None = None,
    ) -> None:
        self.net = net
        groups = groups or [(1.0, [p for p in net.parameters() if p.requires_grad])]
        self.params = [p for _, params in groups for p in params]
        if not self.params:
            raise UserError("the network has no parameters to train: expected at least one that is not frozen")
        try:
            self.optimizer, factors = make_optimizer(optimizer, net, groups, kinds)
        except (TypeError, ValueError) as error:  # torch.optim's classes check their own arguments
            raise UserError(
                f"the optimizer refuses its settings: {error}\n  expected values that torch.optim documents"
            ) from None
        if not isinstance(self.optimizer, Optimizer):
            raise UserError(f"optimizer: its function returns {self.optimizer!r}\n  expected a torch.optim.Optimizer")
        self.take_step = plain_step(self.optimizer)
        self.schedule, self.clip, self.on_nan, self.dist = schedule, clip, on_nan, dist
        self.grad_norm: Tensor | None = None  # global norm of the last step's gradients before clipping
        self.clips = any(limit is not None for limit in clip)
        self.watched: list[tuple[str, nn.Parameter]] = []  # whose gradients' norms are recorded in each step
        self.norms: dict[str, Tensor] = {}
        pairs = zip(self.optimizer.param_groups, factors, strict=True)
        self.base_lr = [group["lr"] * factor for group, factor in pairs]
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr
        self.factor, self.skipped, self.last_loss = 1.0, 0, float("nan")
        self.scaler = torch.amp.GradScaler(self.params[0].device.type) if precision == "fp16" else None
        self.average_of: Callable[[Tensor], Tensor] | None = getattr(self.optimizer, "averaged", None)
        if ema and self.average_of:
            raise UserError(
                f"trainer.ema={ema:g}: this optimizer averages the weights itself\n  expected trainer.ema=0"
            )
        has_average = ema or self.average_of
        self.decay, self.ema = ema, deepcopy(net).requires_grad_(False).eval() if has_average else None
        self.averaged = 0  # number of steps in the average
        self.first_loss = self.peak = float("nan")  # the first step's loss, the highest loss of the first EARLY steps
        self.scalar = AsyncScalar(self.params[0].device)
        self.snapshot = (buffers or BufferSnapshot(net)) if on_nan == "skip" else None

    @property
    def lr(self) -> float:
        """The present learning rate of parameters whose group has factor 1."""
        return self.optimizer.defaults["lr"] * self.factor

    def watch(self, prefix: str = "") -> None:
        """Record the norms of all gradients of a step in `norms`: grad/<prefix><parameter>, and clipped/... if clipped.

        The gradient of a step, not of its micro-batches, averaged over the processes.
        """
        names = {param: f"{prefix}{name}" for name, param in self.net.named_parameters()}
        self.watched = [(names[param], param) for param in self.params if param in names]

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a micro-batch's loss."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def step(
        self,
        loss: Tensor,
        clock: Clock,
        earlier: Tensor | None = None,
        backward: Callable[[Tensor], None] | None = None,
    ) -> bool:
        """Backpropagate `loss` and take one step with all accumulated gradients.

        earlier: sum of the losses that were passed to `backward` for this step; None if there were none. backward: runs
        instead of this object's own (system/graphs.py). Returns False if the step was skipped because the loss or a
        gradient is not finite. Raises Diverged with on_nan="stop".
        """
        read_loss = self.scalar.start(self.dist.mean(loss.detach() if earlier is None else loss.detach() + earlier))
        (backward or self.backward)(loss)
        value = read_loss()
        is_taken = isfinite(value) and self._step(clock)
        if is_taken:
            self.record(value, clock)
            self.save_buffers()
        elif self.snapshot:
            self.skipped += 1
            self.snapshot.restore()
        else:
            raise self.diverged(value, clock)
        for param in self.params:  # as zero_grad does, without the profiler's record
            param.grad = None
        return is_taken

    def diverged(self, value: float, clock: Clock) -> Diverged:
        """The error for a loss that is not finite: this step's, or that of an earlier step's gradients."""
        before = f"the last finite loss was {self.last_loss:.6g}" if isfinite(self.last_loss) else "no loss was finite"
        if all(bool(param.isfinite().all()) for param in self.params):
            cause = "expected a finite loss; this step did not change the weights"
        else:
            cause = (
                "expected finite gradients; those of an earlier step were not finite, nor are the weights since then"
            )
        return Diverged(
            f"the loss is {value} in epoch {clock.epoch + 1}, step {clock.step + 1} (batch {clock.batch + 1} of the "
            f"epoch); {before}, the learning rate {self.lr:g}\n  {cause}\n"
            "  try a lower optimizer.lr, trainer.clip_global_norm=1, or trainer.on_nan=skip to skip such steps"
        )

    def record(self, value: float, clock: Clock) -> None:
        """Remember the loss of a step that was taken."""
        self.last_loss = value
        if clock.step < EARLY:
            if self.first_loss != self.first_loss:
                self.first_loss = self.peak = value
            self.peak = max(self.peak, value)

    def save_buffers(self) -> None:
        """Save the buffers that a skipped step restores: after steps, and after other changes to them."""
        if self.snapshot:
            self.snapshot.save()

    def scale_lr(self, by: float) -> None:
        """Multiply the config's learning rate by a factor; before the first step only."""
        self.optimizer.defaults["lr"] *= by
        self.base_lr = [lr * by for lr in self.base_lr]
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr

    def set_lr(self, clock: Clock) -> None:
        """Set the learning rates to the schedule's values at this time."""
        factor = float(self.schedule(clock))  # NumPy's floats cannot be in a checkpoint
        if factor != self.factor:
            self.factor = factor
            for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
                group["lr"] = lr * factor

    def _step(self, clock: Clock) -> bool:
        """Reduce and clip the gradients and step. Returns False, with weights unchanged, if one is not finite."""
        self.set_lr(clock)
        if self.dist.size > 1:
            self.dist.average_gradients([p for p in self.params if p.requires_grad])
        if self.snapshot and not self.scaler and not self._has_finite_gradients():
            return False
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if self.watched:
            self.norms = tensor_norms(self.watched, "grad")
        if self.clips:
            self.grad_norm = clip_gradients(self.params, *self.clip)
            if self.scaler and self.grad_norm is not None and not isfinite(self.grad_norm.item()):
                self.grad_norm = None  # the scaler will skip this step
            if self.watched:
                self.norms |= tensor_norms(self.watched, "clipped")
        if self.scaler:
            if isinstance(self.optimizer, torch.optim.SGD):
                check_overflow_first(self.optimizer, not self._has_momentum())
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            with torch.no_grad():
                self.take_step()
        if self.ema is not None:
            self._average(self.ema)
        return True

    def _has_finite_gradients(self) -> bool:
        """Whether all gradients are finite; a finite loss may have others, such as sqrt at 0. Waits for the device."""
        norms = torch._foreach_norm([p.grad for p in self.params if p.grad is not None])
        return bool(torch.stack(norms).isfinite().all())

    def _has_momentum(self) -> bool:
        """Whether SGD has a momentum buffer for every parameter with a gradient, or uses no momentum."""
        learning = (p for p in self.params if p.grad is not None)
        state = self.optimizer.state
        return not self.optimizer.defaults["momentum"] or all("momentum_buffer" in state.get(p, ()) for p in learning)

    @torch.no_grad()
    def _average(self, ema: nn.Module) -> None:
        """Update the exponential moving average of the weights (Polyak and Juditsky 1992); copy the buffers.

        The decay of step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage: the average
        reaches back at most about a tenth of the steps, so even a short run forgets its first weights. The bias
        correction of Adam (Kingma and Ba 2015) would only remove the weights from before the first step.
        """
        self.averaged += 1
        copy_all(ema.buffers(), self.net.buffers())
        if self.average_of:
            copy_all(ema.parameters(), map(self.average_of, self.net.parameters()))
            return
        decay = min(self.decay, (1 + self.averaged) / (10 + self.averaged))
        torch._foreach_lerp_(list(ema.parameters()), list(self.net.parameters()), 1 - decay)

    def state_dict(self) -> dict:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "average": self.ema.state_dict() if self.ema is not None else None,
            **{name: getattr(self, name) for name in SCALARS},
            "buffers": self.snapshot.copies if self.snapshot else None,
        }

    def load_average(self, state: dict) -> None:
        """Load the averaged weights alone, of another optimizer's state. Raises ValueError if they do not fit."""
        if (self.ema is None) != (state["average"] is None):
            raise ValueError("the optimizer that averaged the weights is missing")
        if self.ema is not None:
            self.ema.load_state_dict(state["average"])

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError unless all shapes fit this net."""
        check_state({k: state[k] for k in SCALARS}, SCALARS)
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        check_shapes(self.optimizer)
        for group, mine, lr in zip(self.optimizer.param_groups, settings, self.base_lr, strict=True):
            group.update(mine, lr=lr * state["factor"])  # the config's settings win over those in the file
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None and state["average"] is not None:
            self.ema.load_state_dict(state["average"])
        for name in SCALARS:
            setattr(self, name, state[name])
        if self.snapshot:
            copy_all(self.snapshot.copies, state["buffers"])
