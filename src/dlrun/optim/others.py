"""Optimizers that torch does not have: Lion, LAMB, Lookahead, Schedule-Free AdamW."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlrun.optim.steps import EPS, States, adam_direction, adamw_step, learning, sgd_step


class Lion(Optimizer):
    """The sign of an interpolation between momentum and gradient (Chen et al. 2023, program 1)."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures: see Update
        for group, params, grads, states in learning(self):
            first, second = group["betas"]
            for param, state in zip(params, states, strict=True):
                if not state:
                    state["mean"] = torch.zeros_like(param)
            means = [state["mean"] for state in states]
            signs = torch._foreach_sign(torch._foreach_lerp(means, grads, 1 - first))
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, signs, alpha=-group["lr"])
            torch._foreach_lerp_(means, grads, 1 - second)


class Lamb(Optimizer):
    """Adam whose step in each tensor has that tensor's norm times the rate (You et al. 2020, algorithm 2)."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures: see Update
        for group, params, grads, states in learning(self):
            steps = adam_direction(grads, states, group["betas"])
            torch._foreach_add_(steps, params, alpha=group["weight_decay"])
            pairs = zip(torch._foreach_norm(params), torch._foreach_norm(steps), strict=True)
            ratios = [torch.where((mine > 0) & (its > 0), mine / its, 1.0) for mine, its in pairs]
            torch._foreach_mul_(steps, ratios)
            torch._foreach_add_(params, steps, alpha=-group["lr"])


class Lookahead(Optimizer):
    """SGD or AdamW; after each `every` steps the weights return part of the way (Zhang et al. 2019, algorithm 1)."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures: see Update
        for group, params, grads, states in learning(self):
            for param, state in zip(params, states, strict=True):
                if not state:
                    state["slow"], state["ahead"] = param.clone(), param.new_zeros(())
            lr, decay = group["lr"], group["weight_decay"]
            if group["base"] == "sgd":
                sgd_step(params, grads, states, lr=lr, factor=group["momentum"], nesterov=True, decay=decay)
            else:
                adamw_step(params, grads, states, lr=lr, betas=group["betas"], decay=decay)
            self._look_ahead(params, states, group["every"], group["share"])

    def _look_ahead(self, params: list[Tensor], states: States, every: int, share: float) -> None:
        torch._foreach_add_([state["ahead"] for state in states], 1)
        for param, state in zip(params, states, strict=True):
            is_due = state["ahead"] % every == 0  # on the device, which need not wait for it
            state["slow"].lerp_(param, torch.where(is_due, share, 0.0))
            param.copy_(torch.where(is_due, state["slow"], param))


class ScheduleFree(Optimizer):
    """AdamW whose weights for evaluation are a running average, instead of a schedule (Defazio et al. 2024).

    Algorithm 1 with Adam's second moments: the net holds y, between the fast weights z and their average x;
    `averaged` gives x, with which the net is evaluated. Batch normalisation keeps the statistics of y.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures: see Update
        for group, params, grads, states in learning(self):
            (share, second), lr = group["betas"], group["lr"]
            for y, grad, state in zip(params, grads, states, strict=True):
                if not state:
                    state["z"], state["square"] = y.clone(), torch.zeros_like(y)
                    state["step"], state["weights"] = y.new_zeros(()), y.new_zeros(())
                state["step"] += 1
                state["weights"] += lr**2
                state["square"].mul_(second).addcmul_(grad, grad, value=1 - second)
                root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(EPS)
                x = torch.lerp(state["z"], y, 1 / share)
                state["z"].addcdiv_(grad, root, value=-lr).add_(y, alpha=-lr * group["weight_decay"])
                x.lerp_(state["z"], lr**2 / state["weights"].clamp(min=1e-30))
                y.copy_(torch.lerp(state["z"], x, share))

    def averaged(self, param: Tensor) -> Tensor:
        """The average x of a parameter; the parameter itself if it has not learned."""
        state = self.state.get(param)
        return torch.lerp(state["z"], param, 1 / self.defaults["betas"][0]) if state else param
