"""Trust region policy optimisation: the policy's largest step whose KL divergence from the old one stays in a bound.

Source: Schulman et al. 2015 (equation 14; appendix C: conjugate gradients with products of the Fisher matrix and a
vector, then a line search); the book, section 14.3.5, which gives the problem and no experiment. Advantages by GAE; the
value learns by gradient descent on its squared error, several passes over each rollout.
Logged: return and length (means over the last 100 episodes), gain (of the surrogate objective), kl, step_fraction
(share of the largest step that was taken; 0: none was good), value_loss, entropy, explained_variance.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.errors import UserError
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RolloutTask
from dlrun.tasks.rl.collector import Rollout
from dlrun.tasks.rl.ppo import kl, surrogate
from dlrun.tasks.rl.returns import explained_variance, gae
from dlrun.types import Few, Fraction, NonNegative, Positive, Size


class TRPO(RolloutTask):
    """Trust region policy optimisation: one step of the policy from each rollout, by its natural gradient.

    The optimizer of the config trains the value only. The keys are described in configs/task/trpo.yaml.
    """

    net: Policy

    def __init__(
        self,
        net: Policy,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        num_steps: Size,
        gamma: Fraction,
        gae_lambda: Fraction,
        max_kl: Positive,
        damping: NonNegative,
        cg_steps: Few,
        search_steps: Few,
        value_epochs: Few,
        minibatch: Size,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        if net.critic_trunk is None:
            raise UserError(
                "TRPO steps the policy and the value apart, and this network shares its trunk between them\n"
                "  expected model.shared=false"
            )
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        self.num_steps, self.gamma, self.gae_lambda = num_steps, gamma, gae_lambda
        self.max_kl, self.damping, self.cg_steps, self.search_steps = max_kl, damping, cg_steps, search_steps
        self.value_epochs, self.minibatch = value_epochs, minibatch
        self.policy = [*net.trunk.parameters(), *net.actor.parameters()]
        self.policy += [] if net.log_std is None else [net.log_std]

    def step(self, batch: Rollout, clock: Clock) -> Metrics:
        with torch.no_grad():
            values = self.net.values(torch.cat((batch.obs, batch.bootstrap_obs))).float()
        values, bootstrap_values = values.split((len(batch.obs), len(batch.bootstrap_obs)))
        v = values.cpu().numpy().reshape(batch.rewards.shape)
        next_values = batch.next_values(v, bootstrap_values.cpu().numpy())
        gains = gae(batch.rewards, v, next_values, batch.terminated, batch.truncated, self.gamma, self.gae_lambda)
        advantages = torch.from_numpy(gains.reshape(-1)).to(self.device.torch_device)
        returns = values + advantages

        value_losses = []
        for _ in range(self.value_epochs):
            order = torch.randperm(len(batch.obs), device=self.device.torch_device)
            for rows in order.split(self.minibatch):
                loss = 0.5 * (self.net.values(batch.obs[rows]).float() - returns[rows]).square().mean()
                if not self.update.step(loss, clock):
                    return {}
                value_losses.append(loss.detach())

        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        metrics = self._step_policy(batch.obs, batch.actions, advantages)
        self.observe(batch.obs)  # after learning, since the ratios need the statistics that the actor used
        explained = explained_variance(v, v + gains)
        losses = {"value_loss": torch.stack(value_losses).mean()}
        return self.scalars(batch, explained_variance=explained) | losses | metrics

    def _step_policy(self, obs: Tensor, actions: Tensor, advantages: Tensor) -> Metrics:
        """Take the largest step along the natural gradient that improves the surrogate within the bound on the KL."""
        net, mean = self.net, self.device.dist.mean
        with torch.no_grad():
            old_out = net.outputs(obs)
            old = net.log_prob(old_out, actions)
            old_log_std = None if net.log_std is None else net.log_std.clone()

        def evaluate() -> tuple[Tensor, Tensor]:
            """The gain of the surrogate objective, and the KL divergence from the old policy."""
            out = net.outputs(obs)
            gain = -surrogate(net.log_prob(out, actions) - old, advantages, None)
            return gain, kl(old_out, out, old_log_std, net.log_std).mean()

        first_gain, divergence = evaluate()
        gradient = mean(flat(torch.autograd.grad(first_gain, self.policy, retain_graph=True)))
        slope = flat(torch.autograd.grad(divergence, self.policy, create_graph=True))

        def fisher(vector: Tensor) -> Tensor:
            """The product of the Fisher matrix, which is the Hessian of the KL divergence, with a vector."""
            product = torch.autograd.grad(slope @ vector, self.policy, retain_graph=True)
            return mean(flat(product)) + self.damping * vector

        direction = conjugate_gradients(fisher, gradient, self.cg_steps)
        curvature = direction @ fisher(direction)
        before = flat(self.policy).detach()
        fraction, gain, divergence = 0.0, torch.zeros_like(first_gain), torch.zeros_like(divergence)
        if curvature > 0:
            full = (2 * self.max_kl / curvature).sqrt() * direction
            for i in range(self.search_steps):
                assign(self.policy, before + 0.5**i * full)
                with torch.no_grad():
                    new_gain, new_divergence = map(mean, evaluate())
                if new_gain - mean(first_gain.detach()) > 0 and new_divergence <= self.max_kl:
                    fraction, gain, divergence = 0.5**i, new_gain - mean(first_gain.detach()), new_divergence
                    break
            else:
                assign(self.policy, before)
        entropy = net.entropy(old_out).mean()
        fractions = torch.tensor(fraction, device=obs.device)
        metrics = {"gain": gain, "kl": divergence, "step_fraction": fractions, "entropy": entropy}
        return {name: value.detach() for name, value in metrics.items()}


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors into one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def assign(tensors: Sequence[Tensor], vector: Tensor) -> None:
    """Copy the parts of a vector into tensors, which keep their memory layout."""
    for tensor, part in zip(tensors, vector.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """Solve A x = b for a symmetric positive definite A, given by its product with a vector.

    Stops early at a squared residual below 1e-10. Source: Hestenes and Stiefel 1952.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual @ residual
    for _ in range(steps):
        if square < 1e-10:
            break
        image = product(direction)
        length = square / (direction @ image)
        x += length * direction
        residual -= length * image
        direction = residual + (new := residual @ residual) / square * direction
        square = new
    return x
