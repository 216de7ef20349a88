"""One optimizer step for several jobs, each with its own rates, limits and averages.

The jobs' own updates stay in charge of settings and schedules. Jobs whose settings agree are neighbours in the stack
and share a group of one optimizer, whose parameters are rows of the stacked ones. Learning rates may differ within a
group: a step is linear in the rate, so that each job takes its share of a step of rate 1.
"""

from collections.abc import Callable, Sequence
from itertools import chain, cycle
from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrun.clock import Clock
from dlrun.optim.buffers import copy_all
from dlrun.optim.others import Lion
from dlrun.optim.update import EARLY, Update
from dlrun.stack.axes import along
from dlrun.stack.functions import NotStackable
from dlrun.stack.net import as_views
from dlrun.stack.pieces import Piece, ranges
from dlrun.system.torch_internals import quick_step

Limits = Sequence[float | None]  # of each job
# optimizers that treat each number of a parameter by itself, so that the rows of several jobs are one parameter
OF_TORCH = ("SGD", "Adam", "AdamW", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax")
ELEMENTWISE = (*(getattr(torch.optim, name) for name in OF_TORCH), Lion)


def backward(losses: Tensor) -> None:
    """Accumulate the gradients of the losses of all jobs."""
    losses.sum().backward()


class StackedUpdate:
    """Turns the losses of K jobs into a step of each.

    updates: the jobs' own; their settings and states are read, and written back by `write_back`.
    net: the stacked network. leaves: by parameter of the first job, the parameters of all jobs, stacked.
    make: makes the optimizer from groups.
    settings: a text for each job; jobs whose optimizers are equal but for the rate have equal texts and are neighbours.
    rates: a text for each job; jobs with equal rates and schedules have equal texts.
    """

    def __init__(
        self,
        updates: Sequence[Update],
        net: nn.Module,
        leaves: dict[nn.Parameter, Tensor],
        make: Callable[..., Optimizer],
        settings: Sequence[str],
        rates: Sequence[str],
    ) -> None:
        self.updates = updates
        first = updates[0]
        if first.snapshot or first.scaler or first.average_of:
            kind = type(first.optimizer).__name__
            why = "trainer.on_nan=skip" if first.snapshot else "trainer.precision=fp16" if first.scaler else kind
            raise NotStackable(f"{why}: its state has no stacked form")
        self.leaves = [leaves[param] for param in first.params]
        self.is_elementwise = type(first.optimizer) in ELEMENTWISE
        self.ranges = ranges(settings) if self.is_elementwise else [(k, k + 1) for k in range(len(updates))]
        if len({type(update.optimizer) for update in updates}) > 1:
            raise NotStackable("the jobs differ in the class of their optimizer")
        self.are_even = [len(set(rates[start:stop])) == 1 for start, stop in self.ranges]
        self.pieces: list[Piece] = []
        groups: list[list[dict[str, Any]]] = []  # of each range
        for start, stop in self.ranges:
            groups.append([])
            leaf_of = dict(zip(updates[start].net.parameters(), map(leaves.get, first.net.parameters()), strict=True))
            for group in updates[start].optimizer.param_groups:  # ranges may group the parameters differently
                leaves_of = [cast(Tensor, leaf_of[param]) for param in group["params"]]
                mine = [Piece(leaf, start, stop, self.is_elementwise) for leaf in leaves_of]
                self.pieces += mine
                groups[-1].append(group | {"params": [piece.param for piece in mine]})
        # an optimizer that is not known sees the parameters of one job
        self.optimizers = [make(sum(groups, []))] if self.is_elementwise else [make(each) for each in groups]
        self.steps = list(map(quick_step, self.optimizers))
        self._read_states()
        decays = {update.decay for update in updates}
        self.averages = self._stack_averages(leaves) if decays != {0.0} else None
        self.grad_norm: Tensor | None = None  # each job's, before clipping
        self.values = [update.last_loss for update in updates]  # the losses of the last step
        self.broken: list[int] = []  # the jobs whose losses in the last step were not finite
        self.net, self.ema = net, None  # attributes that `Task.evaluated` reads
        has_limits = any(update.clips for update in updates)
        self.clips = tuple(zip(*(update.clip for update in updates), strict=True)) if has_limits else ()

    def step(self, losses: Tensor, clock: Clock, backward: Callable[[Tensor], None] = backward) -> bool:
        """Backpropagate and step all jobs, by their losses (K,). A job whose loss is not finite harms no other."""
        backward(losses)
        self._take_losses(losses.detach().tolist(), clock)
        for update in self.updates:
            update.set_lr(clock)
        if self.clips:
            self._clip(*self.clips)
        with torch.no_grad():
            for piece in self.pieces:
                piece.set_grad()
            uneven = self._set_rates()
            before = [piece.param.clone() for piece, _ in uneven]
            for take_step in self.steps:
                take_step()
            for (piece, shares), old in zip(uneven, before, strict=True):
                torch.lerp(old, piece.param, along(shares, old.dim(), 1), out=piece.param)
            self._average()
        for leaf in self.leaves:
            leaf.grad = None
        return True

    def save_buffers(self) -> None: ...  # for trainer.on_nan=skip, which has no stacked form

    def _take_losses(self, values: list[float], clock: Clock) -> None:
        """Keep the losses of this step. The jobs' updates record the first ones, and the last before a broken one."""
        before, self.values = self.values, values
        self.broken = [] if isfinite(sum(values)) else [k for k, value in enumerate(values) if not isfinite(value)]
        if self.broken or clock.step < EARLY:
            for update, old, value in zip(self.updates, before, values, strict=True):
                if isfinite(value):
                    update.record(value, clock)
                elif isfinite(old):
                    update.last_loss = old

    def _set_rates(self) -> list[tuple["Piece", Tensor]]:
        """Set the rates of the optimizer's groups; return the pieces of uneven ones with their jobs' rates, (jobs,)."""
        groups, pieces, uneven = chain(*(each.param_groups for each in self.optimizers)), iter(self.pieces), []
        for (start, stop), is_even in zip(self.ranges, self.are_even, strict=True):
            of_jobs = [update.optimizer.param_groups for update in self.updates[start : start + 1 if is_even else stop]]
            for same in zip(*of_jobs, strict=True):  # one group in each of the jobs
                next(groups)["lr"] = same[0]["lr"] if is_even else 1.0
                mine = [next(pieces) for _ in same[0]["params"]]
                if not is_even:
                    rates = torch.tensor([group["lr"] for group in same], device=self.leaves[0].device)
                    uneven += [(piece, rates) for piece in mine]
        return uneven

    @torch.no_grad()
    def _clip(self, values: Limits, norms: Limits, totals: Limits) -> None:
        """As optim/clipping.py, for each job."""
        grads = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
        if any(limit is not None for limit in values):
            limits = self._limits(values)
            for grad in grads:
                bound = along(limits, grad.dim(), 1)
                grad.clamp_(-bound, bound)
        if any(limit is not None for limit in norms):
            limits = self._limits(norms)
            for grad in grads:
                factors = limits / torch.maximum(job_norms(grad), limits)
                grad.mul_(along(factors.nan_to_num_(1.0), grad.dim(), 1))
        self.grad_norm = None
        if any(limit is not None for limit in totals):
            limits = self._limits(totals)
            self.grad_norm = torch.linalg.vector_norm(torch.stack([job_norms(grad) for grad in grads]), dim=0)
            factors = limits / torch.maximum(self.grad_norm, limits)
            for grad in grads:
                grad.mul_(along(factors.nan_to_num(1.0), grad.dim(), 1))

    def _limits(self, limits: Limits) -> Tensor:
        """(K,); infinity where a job has no limit."""
        return torch.tensor([float("inf") if x is None else x for x in limits], device=self.leaves[0].device)

    def _stack_averages(self, leaves: dict[nn.Parameter, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(average, leaf or buffer) of all jobs. The jobs' averaged networks become views."""
        averages = [update.ema for update in self.updates if update.ema is not None]
        if len(averages) < len(self.updates):
            raise NotStackable("trainer.ema is 0 in some of the jobs")
        stacks = [as_views(list(params)) for params in zip(*(net.parameters() for net in averages), strict=True)]
        return list(zip(stacks, (leaves[param] for param in self.updates[0].net.parameters()), strict=True))

    def _average(self) -> None:
        """As Update._average, for each job."""
        if self.averages is None:
            return
        for update in self.updates:
            update.averaged += 1
        shares = [1 - min(u.decay, (1 + u.averaged) / (10 + u.averaged)) for u in self.updates]
        weights = torch.tensor(shares, device=self.leaves[0].device)
        for average, leaf in self.averages:
            average.lerp_(leaf, along(weights, leaf.dim(), 1))
        for update in self.updates:
            if update.ema is not None:
                copy_all(update.ema.buffers(), update.net.buffers())

    def write_back(self) -> None:
        """Give each job its own optimizer's state, as views, and its last loss, for its checkpoint."""
        for update, value in zip(self.updates, self.values, strict=True):
            update.last_loss = value if isfinite(value) else update.last_loss
        pieces = iter(self.pieces)
        for (start, stop), stacked in zip(self.ranges, cycle(self.optimizers), strict=False):
            for group in range(len(self.updates[start].optimizer.param_groups)):
                for position in range(len(self.updates[start].optimizer.param_groups[group]["params"])):
                    piece = next(pieces)
                    state = stacked.state.get(piece.param, {})
                    for k in range(start, stop):
                        optimizer = self.updates[k].optimizer
                        param = optimizer.param_groups[group]["params"][position]
                        optimizer.state[param] = {n: piece.of_job(k, n, value) for n, value in state.items()}

    def _read_states(self) -> None:
        """Take over the states of the jobs' own optimizers, which restored jobs have."""
        pieces = iter(self.pieces)
        for (start, stop), stacked in zip(self.ranges, cycle(self.optimizers), strict=False):
            for group, settings in enumerate(self.updates[start].optimizer.param_groups):
                for position, param in enumerate(settings["params"]):
                    piece = next(pieces)
                    optimizers = [self.updates[k].optimizer for k in range(start, stop)]
                    states = [each.state.get(each.param_groups[group]["params"][position]) for each in optimizers]
                    if all(states):
                        whole = cast("list[dict[str, Any]]", states)
                        stacked.state[piece.param] = {
                            name: piece.of_all(name, [state[name] for state in whole], param.shape) for name in whole[0]
                        }


def job_norms(grad: Tensor) -> Tensor:
    """The L2 norm of each job's part: (K, ...) -> (K,)"""
    return torch.linalg.vector_norm(grad.flatten(1), dim=1)
