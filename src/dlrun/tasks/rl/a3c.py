"""Asynchronous advantage actor-critic (A3C): worker processes share the weights and do not wait for each other.

Source: Mnih et al. 2016, algorithm S3; the book, sections 14.5 and 14.5.3. A worker pulls the weights, plays
`num_steps` steps and pushes its gradients, which an optimizer with shared statistics applies without locks (Hogwild:
Recht et al. 2011). The order of the updates depends on the machine. So two runs with the same seed differ, and a
resumed run is not bit-identical to an uninterrupted one. A resume loses no learning, but a checkpoint in mid-epoch may
be taken while workers write to the weights, as may the copies that they pull.
The book replaces the last reward of an episode by -1: task.end_reward=-1.
Logged: return, length, policy_loss, value_loss, entropy, explained_variance.
"""

import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import NamedTuple, cast

import torch
import torch.multiprocessing
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import EnvData
from dlrun.errors import UserError
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.cpus import cpus
from dlrun.system.device import Device
from dlrun.system.signals import STOPPING
from dlrun.system.torch_internals import skip_compiler_import
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.a2c import Loss
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Collector
from dlrun.tasks.rl.workers import WorkerPool, receive
from dlrun.types import Fraction, NonNegative, Processes, Size


class Report(NamedTuple):
    """The result of a worker's turn (one rollout and one update).

    episodes: return and length of each episode that ended. metrics: terms of the loss, or empty if the update was
    skipped (trainer.on_nan=skip).
    """

    frames: int
    episodes: list[tuple[float, int]]
    metrics: dict[str, float]


class A3C(RLTask[Report]):
    """Asynchronous advantage actor-critic.

    workers: number of processes, each with data.num_envs environments; null: one per core.
    num_steps: steps of each environment per update.
    """

    net: Policy

    def __init__(
        self,
        net: Policy,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        workers: Processes | None,
        num_steps: Size,
        gamma: Fraction,
        gae_lambda: Fraction,
        vf_coef: NonNegative,
        ent_coef: NonNegative,
        normalise_advantage: bool,
        end_reward: float | None,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        if device.torch_device.type != "cpu":
            raise UserError(
                f"A3C's workers share weights in memory, not on {device.torch_device}: expected trainer.device=cpu"
            )
        if device.dist.size > 1:
            raise UserError(
                f"A3C starts its own worker processes, and trainer.processes={device.dist.size}\n"
                "  expected trainer.processes=1; for gradients averaged over processes use model=a2c"
            )
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        if self.update.ema is not None:
            raise UserError(
                f"trainer.ema={self.update.decay} with A3C: expected 0, because its workers do not average weights"
            )
        self.workers, self.num_steps, self.make_update = workers or cpus(), num_steps, update
        self.loss = Loss(device, gamma, gae_lambda, vf_coef, ent_coef, normalise_advantage, end_reward)
        self.pool: WorkerPool | None = None

    def steps(self, data: EnvData) -> int:
        """Number of turns in an epoch, of all workers together."""
        return self.rollouts_per_epoch(data, self.num_steps)

    def batches(self, data: EnvData, clock: Clock) -> Iterator[Report]:
        """Yield the workers' reports in the order of arrival. When the iteration ends, the workers are idle."""
        if self.pool is None:
            args = self.net, share(self.update), self.make_update, data, self.loss, self.num_steps
            self.pool = WorkerPool(work, self.workers, *args)
        pool = self.pool
        busy: set[Connection] = set()
        try:
            for pipe in pool.pipes:
                pool.send(pipe, clock)
                busy.add(pipe)
            while busy:
                for pipe in cast("list[Connection]", wait(busy)):
                    busy.remove(pipe)
                    yield receive(pipe)
                    if self.has_frames_left(data, clock):
                        pool.send(pipe, clock)
                        busy.add(pipe)
        finally:
            for pipe in busy:
                receive(pipe)  # the report is dropped; its update is already in the weights

    def samples(self, batch: Report) -> int:
        return batch.frames

    def step(self, batch: Report, clock: Clock) -> Metrics:
        """Record a worker's report; the worker has already updated the weights. Sets the learning rate for the log."""
        self.update.set_lr(clock)
        self.update.skipped += not batch.metrics
        self.collector.history += batch.episodes
        means = dict(zip(("return", "length"), self.collector.means(), strict=True)) if self.collector.history else {}
        return {name: torch.tensor(value) for name, value in (means | batch.metrics).items()} if batch.metrics else {}


def share(update: Update) -> list[dict[str, Tensor]]:
    """Move the weights and the optimizer's state to shared memory; return the state of each parameter.

    A new optimizer has no state yet. It is created by a step with zero gradients and a rate of 0.
    """
    groups = update.optimizer.param_groups
    if not update.optimizer.state:
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = 0.0
        for param in update.params:
            param.grad = torch.zeros_like(param)
        with torch.no_grad():
            update.take_step()
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        for param in update.params:
            param.grad = None
        for value in tensors(update):
            value.zero_()
    update.net.share_memory()
    for value in tensors(update):
        value.share_memory_()
    return [dict(update.optimizer.state[param]) for param in update.params]


def tensors(update: Update) -> list[Tensor]:
    """The tensors of the optimizer's state."""
    return [v for state in update.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]


def work(pipe: Connection) -> None:
    """Run a worker process: receive the arguments from the WorkerPool, then serve until the pipe closes."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # the main process waits for the turn to end and closes the pipe
    torch.set_num_threads(1)
    skip_compiler_import()  # pickling drops the net's compiled form
    try:
        serve(pipe, *pipe.recv())
    except (EOFError, ConnectionError):
        pass  # the main process has closed the pipe or ended
    except UserError as error:
        pipe.send(error)


def serve(
    pipe: Connection, net: Policy, states: list[dict], make_update: Callable[[nn.Module], Update], data: EnvData,
    loss: Loss, length: int,
) -> None:  # fmt: skip
    """For each clock received, play a rollout, update the shared weights and send a report."""
    local_net, update, collector = deepcopy(net), make_update(net), Collector(data.spec, loss.device)
    for param, state in zip(update.params, states, strict=True):
        update.optimizer.state[param] = state
    for local, shared in zip(local_net.parameters(), net.parameters(), strict=True):
        local.register_post_accumulate_grad_hook(partial(push, shared))
    while True:
        clock = pipe.recv()
        local_net.load_state_dict(net.state_dict())  # pull
        if collector.envs is None:
            collector.start(data, clock)
        pipe.send(turn(local_net, net, update, collector, loss, length, clock))


def push(shared: Tensor, local: Tensor) -> None:
    """Move a gradient from the worker's weight to the shared weight."""
    shared.grad, local.grad = local.grad, None


def turn(
    local_net: Policy, net: Policy, update: Update, collector: Collector, loss: Loss, length: int, clock: Clock
) -> Report:
    """Play a rollout with the worker's copy of the weights, and update the shared weights."""
    batch = collector.collect(local_net, length, clock)
    episodes, collector.history = collector.history, []
    value, terms, explained = loss(local_net, batch)
    if not update.step(value, clock):
        return Report(batch.rewards.size, episodes, {})
    net.observe(batch.obs)
    update.save_buffers()
    metrics = {name: term.item() for name, term in terms.items()} | {"explained_variance": cast(float, explained)}
    return Report(batch.rewards.size, episodes, metrics)
