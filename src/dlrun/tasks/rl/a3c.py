"""Asynchronous advantage actor-critic: worker processes share the weights, and none waits for another.

Source: Mnih et al. 2016, algorithm S3; the book, sections 14.8 and 14.9: a worker pulls the weights, plays `length`
steps, and pushes its gradients, which one optimizer with shared statistics applies without locks (Hogwild: Recht et al.
2011). Whose gradients come first is the machine's matter: two runs of one seed differ, and a resumed run is not to the
bit the one that never stopped. Nothing learned is lost by it; a checkpoint in mid-epoch is of weights that other
workers may be writing to, as the copies that they pull are.
Logged: as in tasks/rl/a2c.py.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import NamedTuple

import torch
import torch.multiprocessing
from torch import Tensor, nn

from dlrun.errors import UserError, WorkerError
from dlrun.models.policy import Policy
from dlrun.optim.update import Update, skip_compiler_import
from dlrun.seeds import mix
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.system.python import safe_start
from dlrun.system.signals import STOPPING
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.a2c import Loss
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import RECENT, Collector
from dlrun.types import Few, Fraction, NonNegative, Size


class Report(NamedTuple):
    """What came of a worker's turn: frames played, return and length of the episodes that ended, terms of the loss.

    metrics: empty where the update was left out (trainer.on_nan=skip).
    """

    frames: int
    episodes: list[tuple[float, int]]
    metrics: dict[str, float]


class A3C(RLTask):
    """workers: processes, each with data.num_envs environments; null: one per core.

    num_steps: steps of each environment per update.
    """

    def __init__(
        self,
        net: Policy,
        spec: Env,
        place: Device,
        update: Callable[[nn.Module], Update],
        *,
        workers: Few | None,
        num_steps: Size,
        gamma: Fraction,
        gae_lambda: Fraction,
        vf_coef: NonNegative,
        ent_coef: NonNegative,
        normalise_advantage: bool,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        if place.device.type != "cpu":
            raise UserError(
                f"A3C's workers share weights in memory, not on {place.device}: expected trainer.device=cpu"
            )
        if place.world.size > 1:
            raise UserError(
                f"A3C has worker processes of its own, and trainer.processes={place.world.size} asks for others\n"
                "  expected trainer.processes=1; for gradients averaged over processes: model=a2c"
            )
        super().__init__(net, spec, place, update, eval_episodes, greedy)
        if self.update.ema is not None:
            raise UserError(f"trainer.ema={self.update.decay} with A3C: expected 0, its workers share plain weights")
        self.workers, self.num_steps, self.make_update = workers or os.cpu_count() or 1, num_steps, update
        self.loss = Loss(place, gamma, gae_lambda, vf_coef, ent_coef, normalise_advantage)
        self.crew: Crew | None = None

    def steps(self, data: object) -> int:
        """Turns in an epoch, of all workers together."""
        return self.rollouts_per_epoch(data, self.num_steps)

    def batches(self, data: object, clock: object) -> Iterator[Report]:
        """What the workers report, in the order that it comes; when this ends, or is left, they rest."""
        if self.crew is None:
            self.crew = Crew(
                self.workers, self.net, share(self.update), self.make_update, data, self.loss, self.num_steps
            )
        pipes, busy = self.crew.pipes, set()
        try:
            for pipe in pipes:
                self._send(pipe, clock)
                busy.add(pipe)
            while busy:
                for pipe in wait(busy):
                    busy.remove(pipe)
                    yield receive(pipe)
                    if self.goes_on(data, clock):
                        self._send(pipe, clock)
                        busy.add(pipe)
        finally:
            for pipe in busy:
                receive(pipe)  # what it has learned is in the weights

    def _send(self, pipe: Connection, clock: object) -> None:
        """A turn, with the clock for the schedule and for noise of its own."""
        pipe.send(replace(clock, seed=mix(clock.seed, self.crew.pipes.index(pipe), 5), batch=0))

    def samples(self, batch: Report) -> int:
        return batch.frames

    def step(self, batch: Report, clock: object) -> Metrics:
        """The workers have learned already: counts, and sets the rate that is logged."""
        self.update.set_lr(clock)
        self.update.skipped += not batch.metrics
        self.collector.recent = [*self.collector.recent, *batch.episodes][-RECENT:]
        facts = dict(zip(("return", "length"), self.collector.means(), strict=True)) if self.collector.recent else {}
        return {name: torch.tensor(value) for name, value in (facts | batch.metrics).items()} if batch.metrics else {}


class Crew:
    """The worker processes. They end when their pipes close: with this, at the exit, or when the main process ends."""

    def __init__(self, workers: int, *args: object) -> None:
        self.pipes: list[Connection] = []
        Finalize(self, close, args=(self.pipes,), exitpriority=10)  # before the exit waits for them
        try:
            self._start(workers, args)
        except EOFError:
            raise lost() from None
        except OSError as error:
            raise WorkerError(
                f"A3C's worker processes could not start: {error}\n"
                "  expected room for temporary files, and a short path to them, as in TMPDIR=/tmp dl-run model=a3c"
            ) from None

    def _start(self, workers: int, args: tuple) -> None:
        # a fork of this process would take its threads' locks along; of one that has only imported, none are held
        how = "forkserver" if "forkserver" in torch.multiprocessing.get_all_start_methods() else "spawn"
        context = torch.multiprocessing.get_context(how)
        context.set_forkserver_preload(["dlrun.system.nursery", __name__])
        for _ in range(workers):
            mine, theirs = context.Pipe()
            self.pipes.append(mine)
            with safe_start():
                context.Process(target=work, args=(theirs,), daemon=True).start()
            theirs.close()
        for pipe in self.pipes:
            with suppress(ConnectionError):  # of one that died: it is missed when it should report
                pipe.send(args)  # a start hands 256 open files over at most, and each tensor is one


def close(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.close()


def lost() -> WorkerError:
    return WorkerError(
        "a worker process of A3C was killed, or could not start\n  expected all task.workers to live until the end"
    )


def receive(pipe: Connection) -> Report:
    try:
        found = pipe.recv()
    except (EOFError, ConnectionError):
        raise lost() from None
    if isinstance(found, Exception):
        raise found
    return found


def share(update: Update) -> list[dict[str, Tensor]]:
    """Moves the weights and the optimizer's state (by parameter), made where it is not there, to shared memory."""
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
    """The optimizer's state."""
    return [v for state in update.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]


def work(pipe: Connection) -> None:
    """A worker process: takes what `Crew` has for it, and for each clock that comes plays, updates and reports."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # the main process lets the turn end, and closes the pipe
    torch.set_num_threads(1)
    skip_compiler_import()  # a compiled form of the net does not come along
    try:
        serve(pipe, *pipe.recv())
    except (EOFError, ConnectionError):
        pass  # the main process needs no more
    except UserError as error:
        pipe.send(error)


def serve(
    pipe: Connection, net: nn.Module, states: list[dict], make_update: Callable[[nn.Module], Update], data: object,
    loss: Loss, length: int,
) -> None:  # fmt: skip
    """For each clock that comes a rollout and an update of the shared weights, and a report."""
    own, update, player = deepcopy(net), make_update(net), Collector(data.spec, loss.place)
    for param, state in zip(update.params, states, strict=True):
        update.optimizer.state[param] = state
    for mine, shared in zip(own.parameters(), net.parameters(), strict=True):
        mine.register_post_accumulate_grad_hook(partial(push, shared))
    while True:
        clock = pipe.recv()
        own.load_state_dict(net.state_dict())  # pull
        if player.envs is None:
            player.start(data, clock)
        pipe.send(turn(own, net, update, player, loss, length, clock))


def push(shared: Tensor, mine: Tensor) -> None:
    """Hands a gradient over to the shared weight."""
    shared.grad, mine.grad = mine.grad, None


def turn(
    own: nn.Module, net: nn.Module, update: Update, player: Collector, loss: Loss, length: int, clock: object
) -> Report:
    """A rollout by the worker's own copy of the weights, and an update of the shared ones."""
    batch = player.collect(own, length, clock)
    episodes, player.recent = player.recent, []
    value, terms, explained = loss(own, batch)
    if not update.step(value, clock):
        return Report(batch.rewards.size, episodes, {})
    net.observe(batch.obs)
    update.save_buffers()
    metrics = {name: term.item() for name, term in terms.items()} | {"explained_variance": explained}
    return Report(batch.rewards.size, episodes, metrics)
