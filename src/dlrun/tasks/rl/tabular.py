"""Tabular methods, for few states and actions (the book, section 14.4; Sutton and Barto 2018, by equation below).

value_iteration: Q <- E[r + gamma max Q'] for all entries at once, from the environment's known transitions (4.10).
monte_carlo: Q towards the discounted rewards of the episode (section 5.4). td0: V towards r + gamma V' (6.2); actions
are chosen by one-step lookahead. sarsa: Q towards r + gamma Q(s', a') (6.7). q_learning: Q towards r + gamma max Q'
(6.8).

The last four learn from whole episodes, epsilon-greedy with exploring starts (td0 without, since a random first action
would bias its values). Deviation: the table changes after each batch of episodes, not after each step, and each entry
moves by the optimizer's lr (SGD) towards the mean of its targets. The frames of value_iteration are backups.
Logged: loss (mean squared error).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import EnvData
from dlrun.errors import UserError
from dlrun.models.policy import ValueTable
from dlrun.optim.update import Update
from dlrun.output.figures import ink, new_figure, short
from dlrun.output.report import Report
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.actors import EpsilonGreedy, checked_epsilons, epsilon_at
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Episodes
from dlrun.tasks.rl.returns import rewards_to_go
from dlrun.types import Fraction, Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Transitions(NamedTuple):
    """The known dynamics of an environment with S states and A actions.

    rewards (S, A): expected reward. after (S, A, S): probability of each next state, 0 if the move ends the episode.
    reached (S,): whether a state can be reached from another one. shape: rows and columns if the states form a grid.
    """

    rewards: Tensor
    after: Tensor
    reached: Tensor
    shape: tuple[int, int] | None

    def backup(self, values: Tensor, gamma: float) -> Tensor:
        """The expected value of r + gamma V': (S,) -> (S, A)."""
        return self.rewards + gamma * self.after @ values


class Tabular(RLTask[Episodes | Transitions]):
    """Learns a table of values by one of the methods above.

    epsilon falls from epsilon_start to epsilon_end over the first exploration_fraction of the run.
    """

    net: ValueTable

    def __init__(
        self,
        net: ValueTable,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        method: Literal["value_iteration", "monte_carlo", "td0", "sarsa", "q_learning"],
        gamma: Fraction,
        epsilon_start: Fraction,
        epsilon_end: Fraction,
        exploration_fraction: Fraction,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        if device.dist.size > 1:
            raise UserError(
                f"tabular methods average targets within one process, and trainer.processes={device.dist.size}\n"
                "  expected trainer.processes=1"
            )
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        kind = "states" if method == "td0" else "actions"
        if net.out_features != (1 if method == "td0" else spec.actions):
            raise UserError(f"task.method={method} learns values of {kind}: expected model.values={kind}")
        self.method, self.gamma = method, gamma
        self.epsilons = checked_epsilons(epsilon_start, epsilon_end, exploration_fraction)
        self.known: Transitions | None = None

    def transitions(self, data: EnvData) -> Transitions:
        """The environment's transitions. Raises UserError if it does not provide them."""
        if self.known is None:
            self.known = read_transitions(*data.transitions(), self.device.torch_device)
        return self.known

    def steps(self, data: EnvData) -> int:
        """The largest possible number of batches in an epoch: the lengths of episodes are not known."""
        if self.method in ("value_iteration", "td0"):
            self.transitions(data)  # fails early if the environment does not provide them
        if self.method == "value_iteration":
            return data.epoch_frames
        return self.rollouts_per_epoch(data, 1)

    def collect(self, data: EnvData, clock: Clock) -> Episodes | Transitions:
        if self.method == "value_iteration":
            return self.transitions(data)
        epsilon = epsilon_at(clock, *self.epsilons)
        actor = EpsilonGreedy(self.action_values, self.spec.outputs, epsilon, starts=self.method != "td0")
        return self.collector.episodes(actor, data, clock)

    def samples(self, batch: Episodes | Transitions) -> int:
        return batch.rewards.numel() if isinstance(batch, Transitions) else len(batch.obs)

    def action_values(self, obs: Tensor) -> Tensor:
        """Values of all actions: (B, states) -> (B, actions)."""
        if self.method != "td0":
            return self.net(obs)
        if self.known is None:
            raise UserError(
                "td0 has values of states only, and it needs the environment's transitions to choose actions\n"
                "  expected another method here, such as model=q_learning"
            )
        return obs @ self.known.backup(self.net.weight[0], self.gamma)

    def actor(self) -> EpsilonGreedy:
        self.evaluated()
        return EpsilonGreedy(self.action_values, self.spec.outputs, self.epsilons[1])

    def play(self, data: EnvData, episodes: int, seed: int) -> list[tuple[float, int]]:
        if self.method == "td0":
            self.transitions(data)  # for the one-step lookahead
        return super().play(data, episodes, seed)

    def step(self, batch: Episodes | Transitions, clock: Clock) -> Metrics:
        if isinstance(batch, Transitions):
            q = self.net.weight.T  # (S, A)
            metrics: Metrics = {}
            errors = batch.backup(q.detach().max(1).values, self.gamma) - q
            shares = torch.ones_like(errors)
        else:
            metrics = self.scalars(batch)
            errors, shares = self._errors(batch)
            if not len(errors):
                return {}
        if not self.update.step(0.5 * (shares * errors.square()).sum(), clock):
            return {}
        return metrics | {"loss": errors.detach().square().mean()}

    def _errors(self, batch: Episodes) -> tuple[Tensor, Tensor]:
        """Target minus value for each step that has a target, and each step's share of the targets of its entry."""
        values, limited = self.net(batch.obs), batch.done & ~batch.terminated
        chosen = values.gather(1, batch.actions[:, None]).squeeze(1) if values.shape[1] > 1 else values.squeeze(1)
        if self.method == "monte_carlo":
            targets = rewards_to_go(batch.rewards, batch.done, self.gamma)
            has_target = batch.valid & ~limited.any(0)
        else:
            state_values = np.zeros((len(batch.rewards) + 1, batch.rewards.shape[1]), np.float32)
            best = values.max(1).values if self.method == "q_learning" else chosen
            state_values[:-1][batch.valid] = best.detach().cpu().numpy()
            targets = batch.rewards + self.gamma * state_values[1:] * ~batch.terminated
            has_target = batch.valid & ~limited  # the state after a time limit was not observed
        rows = torch.from_numpy(has_target[batch.valid]).to(self.device.torch_device)
        errors = torch.from_numpy(targets[has_target]).to(self.device.torch_device) - chosen[rows]
        entries = batch.obs[rows].argmax(1) * values.shape[1]
        entries = entries + (batch.actions[rows] if values.shape[1] > 1 else 0)
        return errors, 1 / torch.bincount(entries)[entries]

    def report(self, data: EnvData) -> Report:
        """The values and, if the states form a grid, figures of the values and of the greedy policy."""
        report = super().report(data)
        try:
            transitions = self.transitions(data)
        except UserError:
            return report
        with torch.no_grad():
            q = self.action_values(torch.eye(self.spec.features, device=self.device.torch_device))
        if transitions.shape:
            report.figures = {
                name: partial(policy_figure, q, transitions, name == "policy") for name in ("value", "policy")
            }
        report.numbers = {"values": [[round(value, 4) for value in row] for row in q.tolist()]}
        return report


def read_transitions(table: list, shape: tuple[int, int] | None, device: torch.device) -> Transitions:
    """Convert Gymnasium's P, [state][action] -> [(probability, next state, reward, ends)], to tensors."""
    states, actions = len(table), len(table[0])
    rewards, after = torch.zeros(states, actions), torch.zeros(states, actions, states)
    reached = torch.zeros(states, dtype=torch.bool)
    for s, row in enumerate(table):
        for a, outcomes in enumerate(row):
            for probability, next_s, reward, ends in outcomes:
                rewards[s, a] += probability * reward
                after[s, a, next_s] += probability * (not ends)
                reached[next_s] |= next_s != s
    return Transitions(rewards.to(device), after.to(device), reached, shape)


def policy_figure(q: Tensor, transitions: Transitions, arrows: bool) -> "Figure":
    """Draw the best values over the grid, with their numbers or with arrows for the best actions."""
    rows, columns = transitions.shape or (1, len(q))
    best, after = q.max(1).values.cpu(), transitions.after.cpu()
    best[~transitions.reached] = torch.nan  # walls
    figure, axes = new_figure(1.1 * columns + 1.8, 1.1 * rows + 0.9)
    image = axes.imshow(best.view(rows, columns).numpy(), cmap="YlGnBu")
    axes.set_facecolor("#57606a")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label="value of the best action", format=short)
    bar.outline.set_visible(False)
    for s in transitions.reached.nonzero().squeeze(1).tolist():
        row, column = divmod(s, columns)
        likeliest = after[s, q[s].argmax()]
        there = divmod(int(likeliest.argmax()), columns)
        colour = ink(image.to_rgba(best[s].item()))
        if arrows and likeliest.sum() > 0:
            dy, dx = 0.3 * (there[0] - row), 0.3 * (there[1] - column)
            head = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "mutation_scale": 16}
            axes.annotate("", (column + dx, row + dy), (column - dx, row - dy), arrowprops=head)
        else:
            text = "end" if arrows else f"{best[s]:.3g}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    axes.set_xticks(range(columns), range(1, columns + 1))
    axes.set_yticks(range(rows), range(rows, 0, -1))
    axes.set_xticks([c - 0.5 for c in range(1, columns)], minor=True)
    axes.set_yticks([r - 0.5 for r in range(1, rows)], minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.set_title("greedy policy" if arrows else "value function")
    return figure
