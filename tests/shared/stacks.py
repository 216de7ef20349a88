"""Stacks for the tests: what their jobs are; trained, killed and continued in this process."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from dlrun.errors import UserError
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.folders import read_summary
from dlrun.stack.fit import fit
from dlrun.stack.run import make_job
from dlrun.stack.selection import selection_of
from dlrun.stack.stacked import Stack
from dlrun.stack.stacked_job import StackedJob, job_state, with_values
from dlrun.stack.trial import gain
from dlrun.sweep.axes import Axis
from dlrun.sweep.population import first_values
from dlrun.sweep.settings import Population, Settings
from dlrun.system.signals import Signals

JOBS = [
    ["seed=0", "optimizer.lr=0.01"], ["seed=1", "optimizer.lr=0.03", "task.l2=0.001"],
    ["seed=2", "optimizer.lr=0.01", "task.label_smoothing=0.1"],
    ["seed=3", "trainer.clip_global_norm=0.5", "optimizer.weight_decay=0.1", "schedule=cosine"],
]  # fmt: skip
COMMON = ["model.norm=batch", "model.dropout=0.2", "trainer.ema=0.9", "optimizer=adamw"]
IMAGES = ["data=digits", "data.batch_size=512", "trainer.max_steps=6"]
POINTS = ["data=gaussians", "data.source.samples=200", "data.batch_size=50", "trainer.epochs=3", "model.hidden=[16]"]
UNET = ["model=unet", "model.width=2", "model.depth=2", "data.batch_size=16", "trainer.epochs=2"]
CARTS = ["data=cartpole", "data.num_envs=4", "data.epoch_frames=256", "data.time_limit=20", "data.video_steps=0"]
CARTS += ["trainer.epochs=3", "task.num_steps=16", "task.eval_episodes=3", "model.hidden=[16]"]
PENDULA = ["data=gym", "data.id=Pendulum-v1", *CARTS[1:], "task.update_epochs=2", "task.kl_coef=0.1"]
GAMES = [*CARTS, "data=breakout", "data.time_limit=9", "model.convolutions=[[4,3,2]]"]
OTHERS = {
    "autoencoder": [*IMAGES, "model=autoencoder", "model.hidden=[16]", "model.dropout=0.2", "task.noise=0.3"],
    "vae": [*IMAGES, "model=vae", "model.hidden=[16]", "task.num_samples=4"],
    "adversarial_autoencoder": [*IMAGES, "model=adversarial_autoencoder", "model.hidden=[16]"],
    "gan": [*IMAGES, "model=gan", "model.width=2", "task.loss=hinge", "trainer.ema=0.9"],
    "infogan": [*IMAGES, "model=infogan", "model.width=2", "model.units=8", "task.n_critic=2"],
    "wgan": [*POINTS, "model=wgan", "task.n_critic=2"],
    "wgan_gp": [*POINTS, "model=wgan_gp", "task.n_critic=3"],
    "ppo": [*CARTS, "model=ppo", "task.minibatch=32", "task.update_epochs=2"],
    "a2c": [*CARTS, "model=a2c", "task.normalise_advantage=true"],
    "dqn": [*CARTS, "model=dqn", "task.gradient_steps=4", "task.learning_starts=100", "task.double=true"],
    "continuous": [*PENDULA, "model=ppo", "task=ppo", "task.minibatch=32", "model.normalise=true"],
    "pixels": [*GAMES, "model=dqn", "task=dqn", "task.gradient_steps=4", "task.learning_starts=100"],
    "pixels_ppo": [*GAMES, "model=ppo", "task=ppo", "task.minibatch=32", "task.update_epochs=2"],
    "normalised": [*CARTS, "model=dqn", "task=dqn", "task.learning_starts=100", "model.normalise=true"],
    "segment": ["data=shapes", "data.source.samples=40", "data.spec.shape=[3,32,32]", *UNET],
}


class Killed(BaseException):
    pass


def together(
    folder: Path, configs: list[tuple[dict, dict]], *, kill_at: int = -1, stop_at: int = -1,
    settings: Settings | None = None, axes: Sequence[Axis] = (), is_tried: bool = False,
) -> bool:  # fmt: skip
    """Train a stack, or resume one, as dlrun/stack/run.py does. Returns whether it finished.

    settings, axes: of a sweep that selects between epochs. is_tried: the stack has a trial, as those of sweeps have.
    """
    checkpoints, like, members, found = Checkpoints(folder / "stack"), None, list[StackedJob](), {}
    if list(checkpoints.folder.glob("*.ckpt")):
        found = checkpoints.load_last("id")[0]
    saved = found.get("jobs", {})
    torch.manual_seed(0)
    for number, (config, names) in enumerate(configs):
        if str(number) in saved if saved else True:
            if read_summary(folder / str(number)).get("status") == "finished":
                continue
            values = first_values(settings, axes, number) if isinstance(settings, Population) else {}
            values = job_state(saved[str(number)], number, values).values if saved else values
            member = make_job(number, with_values(config, values), names, folder / str(number), like)
            member.values, like = values, member.session
            members.append(member)
            if saved:
                member.restore(saved[str(number)])
    if not members:  # killed after the last job's end: a sweep starts no process for such a stack
        return True
    selection = selection_of(settings, list(axes), members[0]) if settings else None
    stack = Stack(members, checkpoints, "id", selection=selection, selected=found.get("selected", 0))
    if is_tried and not saved:
        gain(stack)
    silence = open(os.devnull, "w")
    for member in members:
        run = member.training.run
        run.folder.mkdir(parents=True, exist_ok=True)
        run.out = silence
        if saved:
            run.resume(None, member.session.trainer.test)
            member.training.rewind()
        member.session.announce(member.training)
    add = stack.means.__class__.add

    def count(means: object, metrics: dict, samples: int) -> None:
        add(means, metrics, samples)
        if stack.first.clock.step == stop_at:
            signal.raise_signal(signal.SIGTERM)
        if stack.first.clock.step == kill_at:
            checkpoints.wait()
            raise Killed

    stack.means.__class__.add = count
    try:
        with Signals() as signals:
            return fit(stack, signals)
    except Killed:
        return False
    except UserError as error:
        stack.abandon(error)
        raise
    finally:
        stack.means.__class__.add = add
        for member in members:
            member.training.run.close()
        silence.close()
