"""One optimizer and what goes with it: gradients, their scaling and clipping, the schedule, the averaged weights."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from inspect import unwrap
from math import isfinite

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrun.errors import Diverged, UserError, check_state
from dlrun.optim.clipping import clip_gradients
from dlrun.system.distributed import ALONE, Distributed

SCALARS = {"factor": int | float} | dict.fromkeys(("last_loss", "first_loss", "peak"), float)  # of an update's state
SCALARS |= dict.fromkeys(("skipped", "averaged"), int)
EARLY = 100  # steps in which a loss that explodes is looked for


class Update:
    """Takes a loss to a step of the optimizer.

    net: whose parameters learn. optimizer(params), schedule(clock) -> factor on lr. clip: (by value, by norm of each
    tensor, by global norm), None for no clipping. ema: decay of the averaged weights, 0 for none. on_nan: "stop" raises
    Diverged, "skip" leaves the step out (running statistics of norms too) and counts it, where a gradient is not finite
    as well. precision: "fp16" scales the
    loss. groups: the parameters that will ever learn, each group with its factor on the learning rate; None for all of
    the net's. Those that have no gradient yet are left alone, and have no state. world: the processes whose gradients
    are averaged.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[object], float],
        clip: tuple[float | None, float | None, float | None],
        ema: float,
        on_nan: str,
        precision: str,
        groups: list[tuple[float, list[nn.Parameter]]] | None = None,
        world: Distributed = ALONE,
        kept: "BufferSnapshot | None" = None,
    ) -> None:
        self.net = net
        groups = groups or [(1.0, [p for p in net.parameters() if p.requires_grad])]
        self.params = [p for _, params in groups for p in params]
        if not self.params:
            raise UserError("the network has no parameters to train: expected at least one that is not frozen")
        try:
            self.optimizer = optimizer([{"params": params} for _, params in groups])
        except (TypeError, ValueError) as error:  # torch's own classes check their own values
            raise UserError(
                f"the optimizer refuses its settings: {error}\n  expected what torch.optim says of it"
            ) from None
        # its own step, without the profiler's hooks around it and the import of torch's compiler (0.9 s) inside them
        self.take_step = partial(unwrap(type(self.optimizer).step), self.optimizer)
        self.schedule, self.clip, self.on_nan, self.world = schedule, clip, on_nan, world
        self.grad_norm: Tensor | None = None  # of all gradients together before they were clipped by it
        self.clips = any(limit is not None for limit in clip)
        self.base_lr = [self.optimizer.defaults["lr"] * rate for rate, _ in groups]
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr
        self.factor, self.skipped, self.last_loss = 1.0, 0, float("nan")
        self.scaler = torch.amp.GradScaler(self.params[0].device.type) if precision == "fp16" else None
        self.decay, self.ema = ema, deepcopy(net).requires_grad_(False).eval() if ema else None
        self.averaged = 0  # steps that are in the average
        self.first_loss = self.peak = float("nan")  # the loss of the first step, the highest of the EARLY ones
        self.watch = AsyncScalar(self.params[0].device)
        self.kept = (kept or BufferSnapshot(net)) if on_nan == "skip" else None

    @property
    def lr(self) -> float:
        """Of weights whose rate has no factor of its own."""
        return self.optimizer.defaults["lr"] * self.factor

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss that is a piece of a step."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def step(self, loss: Tensor, clock: object, pieces: Tensor | None = None) -> bool:
        """The gradients of `loss`, added to those of earlier pieces (whose summed loss is `pieces`), and one step.

        False where the step was left out because the loss, or a gradient, is not finite.
        """
        watched = self.watch.start(self.world.mean(loss.detach() if pieces is None else loss.detach() + pieces))
        self.backward(loss)
        value = watched()
        is_taken = isfinite(value) and self._step(clock)
        if is_taken:
            self.last_loss = value
            if clock.step < EARLY:
                self._note_early(value)
            self.keep_buffers()
        elif self.kept:
            self.skipped += 1
            self.kept.restore()
        else:
            raise self._diverged(value, clock)
        for param in self.params:  # what zero_grad does, without the profiler's mark around it
            param.grad = None
        return is_taken

    def _diverged(self, value: float, clock: object) -> Diverged:
        """A gradient that is not finite is not looked for: it shows in the weights, at the loss of the next step."""
        before = f"the last finite loss was {self.last_loss:.6g}" if isfinite(self.last_loss) else "no loss was finite"
        if all(bool(param.isfinite().all()) for param in self.params):
            touched = "expected a finite loss; the weights that it is for were not touched by this step"
        else:
            touched = "expected finite gradients; those of an earlier step were not, and the weights are not since then"
        return Diverged(
            f"the loss is {value} in epoch {clock.epoch + 1}, step {clock.step + 1} (batch {clock.batch + 1} of the "
            f"epoch); {before}, the learning rate {self.lr:g}\n  {touched}\n"
            "  try a lower optimizer.lr, trainer.clip_global_norm=1, or trainer.on_nan=skip to leave such steps out"
        )

    def _note_early(self, value: float) -> None:
        if self.first_loss != self.first_loss:
            self.first_loss = self.peak = value
        self.peak = max(self.peak, value)

    def keep_buffers(self) -> None:
        """What a step that is left out goes back to: after steps, and whatever else moves running statistics."""
        if self.kept:
            self.kept.save()

    def scale_rate(self, by: float) -> None:
        """Another learning rate than the config's, before the first step."""
        self.optimizer.defaults["lr"] *= by
        self.base_lr = [lr * by for lr in self.base_lr]
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr

    def set_rate(self, clock: object) -> None:
        """The schedule's learning rates at this time."""
        factor = self.schedule(clock)
        if factor != self.factor:
            self.factor = factor
            for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
                group["lr"] = lr * factor

    def _step(self, clock: object) -> bool:
        self.set_rate(clock)
        if self.world.size > 1:
            self.world.average_gradients([p for p in self.params if p.requires_grad])  # the others stay without
        if self.kept and not self.scaler and not self._has_finite_gradients():
            return False
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if self.clips:
            self.grad_norm = clip_gradients(self.params, *self.clip)
            if self.scaler and self.grad_norm is not None and not isfinite(self.grad_norm.item()):
                self.grad_norm = None  # of a step that the scaler leaves out
        if self.scaler:
            if isinstance(self.optimizer, torch.optim.SGD):
                # torch's fused step goes on from unwritten memory where the first one overflowed: until momentum is
                # there the scaler looks, and waits for the device, before it takes a step
                self.optimizer._step_supports_amp_scaling = self._has_momentum()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            with torch.no_grad():
                self.take_step()
        if self.ema is not None:
            self._average()
        return True

    def _has_finite_gradients(self) -> bool:
        """A loss can be finite where its gradient is not, as that of sqrt(0). Waits for the device."""
        norms = torch._foreach_norm([p.grad for p in self.params if p.grad is not None])
        return bool(torch.stack(norms).isfinite().all())

    def _has_momentum(self) -> bool:
        """Whether SGD has it of all weights that learn now, or needs none."""
        learning = (p for p in self.params if p.grad is not None)
        state = self.optimizer.state
        return not self.optimizer.defaults["momentum"] or all("momentum_buffer" in state.get(p, ()) for p in learning)

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average of the weights (Polyak and Juditsky 1992), warmed up; buffers are copied.

        The decay of step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage: the average
        always reaches back a tenth of the steps at most, so a short run forgets the first weights. A bias correction
        (Kingma and Ba 2015) leaves out those before the first step alone, and all later ones count alike.
        """
        self.averaged += 1
        decay = min(self.decay, (1 + self.averaged) / (10 + self.averaged))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - decay)
        copy_all(self.ema.buffers(), self.net.buffers())

    def state_dict(self) -> dict:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "average": self.ema.state_dict() if self.ema is not None else None,
            **{name: getattr(self, name) for name in SCALARS},
            "buffers": self.kept.good if self.kept else None,
        }

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError where it is not this net's: torch's kernels would write past what is too small."""
        check_state({k: state[k] for k in SCALARS}, SCALARS)
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for param, kept in self.optimizer.state.items():
            for name, value in kept.items():
                is_one = isinstance(value, Tensor) and value.is_floating_point() and value.shape in ((), param.shape)
                if value is not None and not is_one:
                    raise ValueError(f"the optimizer's {name} is not one of a weight of {tuple(param.shape)}")
        for group, mine, lr in zip(self.optimizer.param_groups, settings, self.base_lr, strict=True):
            group.update(mine, lr=lr * state["factor"])  # the config's, whatever stands in the file
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None and state["average"] is not None:
            self.ema.load_state_dict(state["average"])
        for name in SCALARS:
            setattr(self, name, state[name])
        if self.kept:
            copy_all(self.kept.good, state["buffers"])


class BufferSnapshot:
    """A net's running statistics behind the last step that was taken, put back where one is left out.

    One for all updates of a task: an adversary's turn moves the other's statistics too.
    """

    def __init__(self, net: nn.Module) -> None:
        self.buffers = list(net.buffers())
        self.good = [b.clone() for b in self.buffers]

    def save(self) -> None:
        copy_all(self.good, self.buffers)

    def restore(self) -> None:
        copy_all(self.buffers, self.good)


@torch.no_grad()
def copy_all(to: Iterable[Tensor], source: Iterable[Tensor]) -> None:
    for mine, theirs in zip(to, source, strict=True):
        mine.copy_(theirs)


class AsyncScalar:
    """Reads a loss on the host without making the device wait.

    On CUDA the copy starts before the backward pass and is read after it was queued: the device goes on working.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            self.host, self.event = torch.empty((), pin_memory=True), torch.cuda.Event()

    def start(self, loss: Tensor) -> Callable[[], float]:
        if not self.cuda:
            return loss.item
        self.host.copy_(loss, non_blocking=True)
        self.event.record()
        return self._read

    def _read(self) -> float:
        self.event.synchronize()
        return self.host.item()


def skip_compiler_import() -> None:
    """Keeps a new optimizer from importing torch's compiler (0.9 s, 80 MB) only to mark methods as not to be compiled.

    Not to be called where something is compiled.
    """
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dict__.setdefault("__dynamo_disable", plain)
