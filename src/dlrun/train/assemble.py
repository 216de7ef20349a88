"""From a checked config to what a run consists of: trainer, data, place and task; for new runs and finished ones."""

import os
from functools import partial
from typing import NamedTuple

import torch

from dlrun.config.build import build
from dlrun.config.signatures import signature
from dlrun.errors import UserError
from dlrun.optim.update import BufferSnapshot, Update, skip_compiler_import
from dlrun.seeds import mix
from dlrun.spec import Env
from dlrun.system.device import Device, choose_device, compile_parts, prepare_net
from dlrun.system.distributed import init_distributed
from dlrun.system.machine import keep_memory
from dlrun.tasks.base import Task
from dlrun.train.classifier import load_classifier
from dlrun.train.trainer import Trainer
from dlrun.train.weights import start_from


class Parts(NamedTuple):
    trainer: Trainer
    data: object
    place: Device
    task: Task
    started_from: str  # what was loaded of other weights; "" for none


def assemble(config: dict, fitted: dict | None = None) -> Parts:
    """Builds everything; reads no data. fitted: what the data learned in the run that the weights are from, if any.

    Raises UserError where the parts do not fit.
    """
    trainer: Trainer = build(config["trainer"])
    keep_memory()
    device = choose_device(trainer.device)
    world = init_distributed(device.type == "cuda")
    if trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
    if trainer.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(trainer.deterministic)  # imports a part of torch's compiler
    torch.backends.cudnn.benchmark = device.type == "cuda" and not trainer.deterministic
    if not trainer.compile:
        skip_compiler_import()
    torch.manual_seed(mix(config["seed"]))
    data = build(config["data"])
    if world.size > 1:
        check_together(trainer, device)
        if not isinstance(data.spec, Env):  # environments are each process's own
            data.batch_size *= world.size  # each has its share of a batch
    if fitted is not None:
        data.restore(fitted, device)  # a net may ask for the words
    net = build(config["model"])(data.spec)
    loaded = start_from(net, data.spec, config) if fitted is None else ""
    if trainer.sync_norm and world.size > 1:
        net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    is_elsewhere = fitted is not None and trainer.precision == "fp16" and device.type == "cpu"  # and does not learn
    here = prepare_net(net, device, "auto" if is_elsewhere else trainer.precision, world)
    if fitted is not None:
        data.restore(fitted, device, here.channels_last)
    update = partial(
        Update,
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        clip=(trainer.clip_value, trainer.clip_norm, trainer.clip_global_norm),
        ema=trainer.ema,
        on_nan=trainer.on_nan,
        precision=here.precision,
        world=world,
        kept=BufferSnapshot(net) if trainer.on_nan == "skip" else None,
    )
    trained = partial(load_classifier, config=config, device=device)
    handed = {"net": net, "spec": data.spec, "device": here, "update": update, "trained": trained}
    needs = signature(config["task"]["_target_"]).given
    task: Task = build(config["task"])(**{name: handed[name] for name in needs})
    if trainer.compile:
        compile_parts(net, task.compiled, trainer.deterministic)
    return Parts(trainer, data, here, task, loaded)


def check_together(trainer: Trainer, device: torch.device) -> None:
    """Raise UserError where several processes cannot train this together."""
    if trainer.sync_norm and device.type != "cuda":
        raise UserError(
            f"trainer.sync_norm=true on {device.type}: torch synchronises batch normalisation on CUDA only\n"
            "  expected trainer.sync_norm=false, or model.norm=group, which needs no other samples"
        )
