"""Methods for few states and actions, with a table of values (the book, section 14.5; Sutton and Barto 2018).

value_iteration: Q <- E[r + gamma max Q'] everywhere at once, by the moves that the environment tells (equation 4.10).
monte_carlo: towards the rewards that came (5.4). td0: V towards r + gamma V' (6.2), acting by a look one step ahead.
sarsa: towards r + gamma Q(s', a') (6.7). q_learning: towards r + gamma max Q' (6.8).

The last four learn from whole episodes, epsilon-greedy with exploring starts (td0 without: its first action would be
in its values). Deviation: a table changes between batches of episodes, not within, each entry by the optimizer's lr
(SGD) towards the mean of its targets. Frames of value_iteration are backups. Logged: loss (mean squared error).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.errors import UserError
from dlrun.models.policy import Table
from dlrun.optim.update import Update
from dlrun.output.drawing import ink, new_figure, short
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Episodes, EpsilonGreedy
from dlrun.tasks.rl.returns import rewards_to_go
from dlrun.types import Fraction, Size


class Moves(NamedTuple):
    """What an environment tells of itself. rewards (S, A): expected. after (S, A, S): probabilities, 0 behind an end.
    reached (S,): from another state. shape: rows and columns of the states, if they have any.
    """

    rewards: Tensor
    after: Tensor
    reached: Tensor
    shape: tuple[int, int] | None

    def backup(self, values: Tensor, gamma: float) -> Tensor:
        """r + gamma V', expected: (S,) -> (S, A)."""
        return self.rewards + gamma * self.after @ values


class Tabular(RLTask):
    """epsilon: from its start to its end over the share exploration_fraction of the run."""

    def __init__(
        self,
        net: Table,
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
        if device.world.size > 1:
            raise UserError(
                f"a table's entries go towards the mean of their targets, which {device.world.size} processes have not "
                "together\n  expected trainer.processes=1"
            )
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        kind = "states" if method == "td0" else "actions"
        if net.out_features != (1 if method == "td0" else spec.actions):
            raise UserError(f"task.method={method} learns values of {kind}: expected model.values={kind}")
        self.method, self.gamma, self.epsilons = method, gamma, (epsilon_start, epsilon_end, exploration_fraction)
        self.known: Moves | None = None

    def moves(self, data: Data) -> Moves:
        if self.known is None:
            self.known = read_moves(*data.moves(), self.device.device)
        return self.known

    def steps(self, data: Data) -> int:
        """At most: how long episodes are is not known."""
        if self.method in ("value_iteration", "td0"):
            self.moves(data)  # refuses an environment that does not tell them
        if self.method == "value_iteration":
            return data.epoch_frames
        return self.rollouts_per_epoch(data, 1)

    def collect(self, data: Data, clock: Clock) -> Episodes | Moves:
        if self.method == "value_iteration":
            return self.moves(data)
        start, end, until = self.epsilons
        epsilon = end + (start - end) * max(0.0, 1 - clock.fraction / until) if until else end
        player = EpsilonGreedy(self.action_values, self.spec.actions, epsilon, starts=self.method != "td0")
        return self.collector.episodes(player, data, clock)

    def samples(self, batch: Episodes | Moves) -> int:
        return batch.rewards.numel() if isinstance(batch, Moves) else len(batch.obs)

    def action_values(self, obs: Tensor) -> Tensor:
        """(B, states) -> (B, actions)"""
        if self.method != "td0":
            return self.net(obs)
        if self.known is None:
            raise UserError("td0 has values of states only: it acts where the environment is at hand")
        return obs @ self.known.backup(self.net.weight[0], self.gamma)

    def actor(self) -> EpsilonGreedy:
        self.evaluated()
        return EpsilonGreedy(self.action_values, self.spec.actions, self.epsilons[1])

    def play(self, data: Data, episodes: int, seed: int) -> list[tuple[float, int]]:
        if self.method == "td0":
            self.moves(data)  # it acts by a look ahead
        return super().play(data, episodes, seed)

    def step(self, batch: Episodes | Moves, clock: Clock) -> Metrics:
        if isinstance(batch, Moves):
            q, facts = self.net.weight.T, {}  # (S, A)
            targets = batch.backup(q.detach().max(1).values, self.gamma)
            errors, shares = targets - q, 1.0
        else:
            facts = self.scalars(batch)
            errors, shares = self._errors(batch)
            if not len(errors):
                return {}
        if not self.update.step(0.5 * (shares * errors.square()).sum(), clock):
            return {}
        return facts | {"loss": errors.detach().square().mean()}

    def _errors(self, batch: Episodes) -> tuple[Tensor, Tensor]:
        """Targets less values for the steps that have a target, and the share of each in its entry's targets."""
        values, limited = self.net(batch.obs), batch.done & ~batch.terminated
        chosen = values.gather(1, batch.actions[:, None]).squeeze(1) if values.shape[1] > 1 else values.squeeze(1)
        if self.method == "monte_carlo":
            targets = rewards_to_go(batch.rewards, batch.done, self.gamma)
            kept = batch.lived & ~limited.any(0)
        else:
            behind = np.zeros((len(batch.rewards) + 1, batch.rewards.shape[1]), np.float32)
            worth = values.max(1).values if self.method == "q_learning" else chosen
            behind[:-1][batch.lived] = worth.detach().cpu().numpy()
            targets = batch.rewards + self.gamma * behind[1:] * ~batch.terminated
            kept = batch.lived & ~limited  # what would have come behind a limit was not seen
        mine = torch.from_numpy(kept[batch.lived]).to(self.device.device)
        errors = torch.from_numpy(targets[kept]).to(self.device.device) - chosen[mine]
        entries = batch.obs[mine].argmax(1) * values.shape[1]
        entries = entries + (batch.actions[mine] if values.shape[1] > 1 else 0)
        return errors, 1 / torch.bincount(entries)[entries]

    def report(self, data: Data) -> dict[str, object]:
        """The values, and over a grid their picture and the greedy policy's."""
        found = super().report(data)
        try:
            moves = self.moves(data)
        except UserError:
            return found
        with torch.no_grad():
            q = self.action_values(torch.eye(self.spec.features, device=self.device.device))
        if moves.shape:
            found["figures"] = {name: partial(draw, q, moves, name == "policy") for name in ("value", "policy")}
        return found | {"values": [[round(value, 4) for value in row] for row in q.tolist()]}


def read_moves(table: list, shape: tuple[int, int] | None, device: torch.device) -> Moves:
    """From Gymnasium's P: [state][action] -> [(probability, next state, reward, ends)]."""
    states, actions = len(table), len(table[0])
    rewards, after = torch.zeros(states, actions), torch.zeros(states, actions, states)
    reached = torch.zeros(states, dtype=torch.bool)
    for s, row in enumerate(table):
        for a, outcomes in enumerate(row):
            for probability, behind, reward, ends in outcomes:
                rewards[s, a] += probability * reward
                after[s, a, behind] += probability * (not ends)
                reached[behind] |= behind != s
    return Moves(rewards.to(device), after.to(device), reached, shape)


def draw(q: Tensor, moves: Moves, arrows: bool) -> object:
    """The best values over the grid, as numbers or with the way that the best action goes."""
    rows, columns = moves.shape
    best, after = q.max(1).values.cpu(), moves.after.cpu()
    best[~moves.reached] = torch.nan  # walls
    figure, axes = new_figure(1.1 * columns + 1.8, 1.1 * rows + 0.9)
    picture = axes.imshow(best.view(rows, columns).numpy(), cmap="YlGnBu")
    axes.set_facecolor("#57606a")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, label="value of the best action", format=short)
    bar.outline.set_visible(False)
    for s in moves.reached.nonzero().squeeze(1).tolist():
        row, column = divmod(s, columns)
        likeliest = after[s, q[s].argmax()]
        there = divmod(int(likeliest.argmax()), columns)
        colour = ink(picture.to_rgba(best[s].item()))
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
