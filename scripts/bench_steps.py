"""Training steps of dl-run and of a hand-written loop, in one process and in turns.

bench_steps.py mlp|lenet|resnet18|fast_cnn|vae|wgan_gp STEPS [cpu|cuda] [OVERRIDE ...]

Print JSON: seconds a step of both (medians over blocks) and, on CUDA, dl-run's synchronisations a step and the peak
memory. With OMP_NUM_THREADS=1 processor time is measured, which depends less on other programs.

OVERRIDE: for example data=table data.file=FILE data.target=COLUMN, of classes.

Both use the same networks, the same images, normalised before the clock starts (batches of 128, or 64), fused Adam, no
averaged weights, and the same precision and memory layout. On a GPU the hand-written loop does nothing that waits for
it. dl-run's steps are those of its own loop: reading batches, reseeding, means, a row every 50 steps.
"""

import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from bench_loops import shuffled
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.config.pairing import CONFIGS
from dlrun.config.saved import plain
from dlrun.output.console import Bar
from dlrun.output.run_folder import RunFolder
from dlrun.system.device import Device
from dlrun.system.signals import Signals
from dlrun.train.engine import train_epoch
from dlrun.train.session import Session
from dlrun.train.state import Training

BLOCK, WARM = {"cpu": 5, "cuda": 50}, 2  # steps in a block; blocks before the clock counts
BATCH = {"wgan_gp": 64, "fast_cnn": 500}  # all others: 128
DATA = {"resnet18": "cifar10", "fast_cnn": "cifar10"}  # all others: MNIST
Batch = tuple[Tensor, Tensor]


def supervised(net: nn.Module, batches: Iterator[Batch], lr: float, device: Device) -> Callable[[], None]:
    """Make a hand-written step of a classifier."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)

    def step() -> None:
        x, y = next(batches)
        with device.autocast():
            out = net(x)
        if out.shape[1] == 1:  # two classes
            F.binary_cross_entropy_with_logits(out.float().squeeze(1), y.float()).backward()
        else:
            F.cross_entropy(out.float(), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def vae(net: nn.Module, batches: Iterator[Batch], lr: float, device: Device) -> Callable[[], None]:
    """Make a hand-written step of the book's VAE."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)

    def step() -> None:
        x, _ = next(batches)
        with device.autocast():
            mean, log_var = net.encoder(x).float().chunk(2, 1)
            out = net.decoder(mean + (0.5 * log_var).exp() * torch.randn_like(mean)).float()
        rec = F.binary_cross_entropy_with_logits(out, x, reduction="sum") / len(x)
        kl = 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum() / len(x)
        loss = rec + kl
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.torch_device.type == "cpu":
            loss.item()  # as a loop that prints the loss

    return step


def wgan_gp(net: nn.Module, batches: Iterator[Batch], lr: float, device: Device) -> Callable[[], None]:
    """Make a step of algorithm 1 of Gulrajani et al. 2017; the generator learns in every fifth."""
    generator, critic = net.generator, net.critic
    adam = {"lr": lr, "betas": (0.5, 0.9), "fused": True}
    of_critic = torch.optim.Adam(critic.parameters(), **adam)
    of_generator = torch.optim.Adam(generator.parameters(), **adam)
    number = 0

    def step() -> None:
        nonlocal number
        x = 2 * next(batches)[0] - 1
        with torch.no_grad(), device.autocast():
            fake = generator(torch.randn(len(x), net.latent, device=x.device)).float()
        t = torch.rand(len(x), 1, 1, 1, device=x.device)
        between = (t * x + (1 - t) * fake).requires_grad_(True)
        with device.autocast():
            (slope,) = torch.autograd.grad(critic(between).float().sum(), between, create_graph=True)
            penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
            loss = critic(fake).float().mean() - critic(x).float().mean() + 10 * penalty
        loss.backward()
        of_critic.step()
        of_critic.zero_grad()
        if device.torch_device.type == "cpu":
            loss.item()  # as a loop that prints the loss
        number += 1
        if number % 5 == 0:
            critic.requires_grad_(False)
            with device.autocast():
                z = torch.randn(len(x), net.latent, device=x.device)
                loss = -critic(generator(z)).float().mean()
            loss.backward()
            critic.requires_grad_(True)
            of_generator.step()
            of_generator.zero_grad()

    return step


def main(model: str, steps: int, device: str = "cpu", *overrides: str) -> None:
    given = [f"model={model}", f"data={DATA.get(model, 'mnist')}", f"data.batch_size={BATCH.get(model, 128)}"]
    given += ["trainer.ema=0", "schedule=constant", f"trainer.device={device}"]
    if model not in ("vae", "wgan_gp"):  # whose configs have Adam's keys
        given.append("optimizer=adam")
    given += overrides
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(compose("config", given))
    session = Session(config, {})
    layout = torch.channels_last if session.device.channels_last else torch.contiguous_format
    x, y = (torch.cat(tensors) for tensors in zip(*session.data.batches("train"), strict=True))
    if model in ("vae", "wgan_gp"):  # they take pixels in [0, 1]
        x = x.mul(0.3081).add(0.1307).clamp(0, 1)
    x = x.contiguous(memory_format=layout)
    endless = (batch for _ in iter(int, 1) for batch in shuffled(x, y, config["data"]["batch_size"]))
    by_hand = {"vae": vae, "wgan_gp": wgan_gp}.get(model, supervised)
    hand = by_hand(deepcopy(session.task.net).train(), endless, config["optimizer"]["lr"], session.device)
    with tempfile.TemporaryDirectory() as folder, Signals() as signals:
        run = RunFolder(Path(folder), {})
        training = Training(session.task, session.trainer, run, Clock(0, 1, 10**6), {})
        batches = (b for e in iter(range(10**6).__iter__().__next__, -1) for b in _epoch(session, e))
        size = BLOCK[device]
        session.task.batches = lambda data, clock: islice(batches, size)
        ours = partial(train_epoch, training, session.data, signals, Bar(training.clock))
        found = timed({"hand": lambda: [hand() for _ in range(size)], "dl-run": ours}, WARM + -(-steps // size), device)
        report = {name: median(seconds) / size for name, seconds in found.items()}
        if device == "cuda":
            report["syncs"] = synchronisations(ours) / size
            report["memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        run.close()
    print(json.dumps(report))


def timed(contestants: dict[str, Callable[[], object]], blocks: int, device: str) -> dict[str, list[float]]:
    """Time blocks of each contestant in turns; return their seconds without the first blocks."""
    found = {name: [] for name in contestants}
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for block in range(blocks):
        for name, work in contestants.items():
            wait()
            started = clock()
            work()
            wait()
            if block >= WARM:
                found[name].append(clock() - started)
    return found


def synchronisations(work: Callable[[], object]) -> int:
    """Count how often torch makes the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    for place, count in places.most_common(5):
        print(f"{count} synchronisations at {place}", file=sys.stderr)
    return sum(places.values())


def _epoch(session: Session, epoch: int) -> Iterator:
    return type(session.task).batches(session.task, session.data, Clock(0, 10**6, session.steps_per_epoch, epoch=epoch))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
