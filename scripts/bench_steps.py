"""Training steps of generative models against hand-written ones, in one process and in turns: a drift meets both alike.

bench_steps.py vae|wgan_gp STEPS        prints {"hand": seconds a step, "dl-run": ...}, medians over blocks of 5 steps
                                        (of the processor's time, with OMP_NUM_THREADS=1: a busy machine matters less)

Both have the same nets, the same rows of the same 55,000 pictures (batches of 128, or 64), fused Adam, no averaged
weights. dl-run's steps are those of its own loop: reading batches, reseeding, means, the row every 50 steps.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from bench_loops import shuffled
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from dlrun.build import CONFIGS
from dlrun.cli import plain
from dlrun.clock import Clock
from dlrun.engine import train_epoch
from dlrun.output.console import Bar
from dlrun.processes.signals import Signals
from dlrun.run import Run
from dlrun.session import Session
from dlrun.training import Training

BLOCK, WARM = 5, 2  # steps in a block; blocks before the clock counts
BATCH = {"vae": 128, "wgan_gp": 64}


def vae(net: nn.Module, batches: Iterator[Tensor], lr: float) -> Callable[[], None]:
    """The book's VAE, as one writes it by hand."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)

    def step() -> None:
        x = next(batches)
        mean, log_var = net.encoder(x).chunk(2, 1)
        out = net.decoder(mean + (0.5 * log_var).exp() * torch.randn_like(mean))
        rec = F.binary_cross_entropy_with_logits(out, x, reduction="sum") / len(x)
        kl = 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum() / len(x)
        loss = rec + kl
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # a loop prints it

    return step


def wgan_gp(net: nn.Module, batches: Iterator[Tensor], lr: float) -> Callable[[], None]:
    """Algorithm 1 of Gulrajani et al. 2017; a turn of the generator at every fifth step."""
    generator, critic = net.generator, net.critic
    adam = {"lr": lr, "betas": (0.5, 0.9), "fused": True}
    of_critic = torch.optim.Adam(critic.parameters(), **adam)
    of_generator = torch.optim.Adam(generator.parameters(), **adam)
    number = 0

    def step() -> None:
        nonlocal number
        x = 2 * next(batches) - 1
        with torch.no_grad():
            fake = generator(torch.randn(len(x), net.latent))
        t = torch.rand(len(x), 1, 1, 1)
        between = (t * x + (1 - t) * fake).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        loss = critic(fake).mean() - critic(x).mean() + 10 * penalty
        loss.backward()
        of_critic.step()
        of_critic.zero_grad()
        loss.item()
        number += 1
        if number % 5 == 0:
            critic.requires_grad_(False)
            loss = -critic(generator(torch.randn(len(x), net.latent))).mean()
            loss.backward()
            critic.requires_grad_(True)
            of_generator.step()
            of_generator.zero_grad()
            loss.item()

    return step


def main(model: str, steps: int) -> None:
    given = [f"model={model}", "data=mnist", f"data.batch_size={BATCH[model]}", "trainer.ema=0", "schedule=constant"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(compose("config", [*given, "trainer.device=cpu"]))
    session = Session(config, {})
    layout = torch.channels_last if session.place.channels_last else torch.contiguous_format
    pixels = torch.cat([x for x, _ in session.data.batches("train")]).mul(0.3081).add(0.1307).clamp(0, 1)
    pixels = pixels.contiguous(memory_format=layout)
    endless = (x for _ in iter(int, 1) for x, _ in shuffled(pixels, torch.zeros(len(pixels)), BATCH[model]))
    hand = globals()[model](deepcopy(session.task.net), endless, config["optimizer"]["lr"])
    with tempfile.TemporaryDirectory() as folder, Signals() as signals:
        run = Run(Path(folder), {})
        training = Training(session.task, session.trainer, run, Clock(0, 1, 10**6), {})
        batches = (b for e in iter(range(10**6).__iter__().__next__, -1) for b in _epoch(session, e))
        session.task.batches = lambda data, clock: islice(batches, BLOCK)
        found = {"hand": [], "dl-run": []}
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        for block in range(WARM + -(-steps // BLOCK)):
            for name, work in (
                ("hand", lambda: [hand() for _ in range(BLOCK)]),
                ("dl-run", lambda: train_epoch(training, session.data, signals, Bar(training.clock))),
            ):
                started = clock()
                work()
                if block >= WARM:
                    found[name].append((clock() - started) / BLOCK)
        run.close()
    print(json.dumps({name: median(values) for name, values in found.items()}))


def _epoch(session: Session, epoch: int) -> Iterator:
    return type(session.task).batches(session.task, session.data, Clock(0, 10**6, session.steps_per_epoch, epoch=epoch))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
