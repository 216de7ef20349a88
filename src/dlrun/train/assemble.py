"""Build a run's objects (trainer, data, device, task) from a checked config, for new runs and finished ones."""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from dlrun.config.build import build, of_runner
from dlrun.config.signatures import signature
from dlrun.data.base import Data, has_samples
from dlrun.errors import UserError, own_code
from dlrun.optim.buffers import BufferSnapshot
from dlrun.optim.trial import factor, try_optimizer, try_schedule
from dlrun.optim.update import Update
from dlrun.seeds import mix
from dlrun.system.convolutions import use_products
from dlrun.system.device import Device, choose_device, compile_parts, prepare_net
from dlrun.system.distributed import init_distributed
from dlrun.system.graphs import why_not
from dlrun.system.machine import keep_memory
from dlrun.system.torch_internals import cpu_has_tiles, skip_compiler_import
from dlrun.tasks.base import Task
from dlrun.tasks.losses.balance import check_sampler
from dlrun.train.classifier import load_classifier
from dlrun.train.trainer import Trainer
from dlrun.train.weights import start_from


class Built(NamedTuple):
    """The objects of a run. loaded: a text on the initial weights that were loaded; "" if there were none."""

    trainer: Trainer
    data: Data
    device: Device
    task: Task
    loaded: str


def assemble(config: dict, fitted: dict | None = None, shared: Data | None = None) -> Built:
    """Build all objects and set torch's global options. Reads no data.

    fitted: the values that a finished run's data fitted on its train split; None for a new run, which also loads the
    initial weights that `init` or `model.weights` name. shared: the data of another run with the same section in its
    config. Raises UserError if the objects do not fit together.
    """
    trainer: Trainer = build(config["trainer"])
    keep_memory()
    device = choose_device(trainer.device)
    dist = init_distributed(device.type == "cuda")
    set_torch_options(trainer, device, config["seed"])
    data: Data = build(config["data"]) if shared is None else shared
    if dist.size > 1:
        check_distributed(trainer, device)
        if has_samples(data):  # an environment is played by each process for itself
            data.batch_size *= dist.size  # batches are split into one shard per process
    if fitted is not None:
        data.restore(fitted, device)  # before the net is built: it may need the vocabulary
    check_sampler(data)
    net = build_net(config["model"], data)
    loaded = start_from(net, data.spec, config) if fitted is None else ""
    if trainer.sync_norm and dist.size > 1:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    # a finished fp16 run may predict on a CPU, though fp16 cannot train there
    is_moved = fitted is not None and trainer.precision == "fp16" and device.type == "cpu"
    context = prepare_net(net, device, "auto" if is_moved else trainer.precision, dist)
    if fitted is not None:
        data.restore(fitted, device, context.channels_last)
    update = update_maker(config, trainer, net, context)
    loader = partial(load_classifier, config=config, device=device)
    arguments = {"net": net, "spec": data.spec, "device": context, "update": update, "load_classifier": loader}
    needed = signature(config["task"]["_target_"]).positional
    task: Task = build(config["task"])(**{name: arguments[name] for name in needed})
    if fitted is None and not is_built_in(config["model"]):
        task.try_net()
    if fitted is None and wants_products(trainer.conv_gradients, context, task):
        use_products(net)
    if trainer.compile:
        compile_parts(net, task.compiled, trainer.deterministic)
    if trainer.cuda_graph and fitted is None:
        reason = why_not(device, trainer.compile, dist.size)
        if not reason and not task.record_steps():
            reason = "this task does not record its steps, or task.grad_accum_steps is not 1"
        if reason and trainer.cuda_graph is True:
            raise UserError(f"trainer.cuda_graph=true: {reason}\n  expected trainer.cuda_graph=auto or false")
    return Built(trainer, data, context, task, loaded)


def is_built_in(node: dict) -> bool:
    """Whether a section of the config builds what is part of dl-run or torch."""
    return str(node["_target_"]).partition(".")[0] in ("dlrun", "torch")


def build_net(model: dict, data: Data) -> nn.Module:
    """Build the network from the data's spec. Raises UserError if the user's own code fails or returns none."""
    name, expected = f"model={model['_target_']}", "an nn.Module"
    if is_built_in(model):
        return build(model)(data.spec)
    with own_code(name, expected):
        net = build(model)(data.spec)
    if not isinstance(net, nn.Module):
        raise UserError(f"{name} returned a {type(net).__name__}\n  expected {expected}")
    return net


def wants_products(asked: str, device: Device, task: Task) -> bool:
    """Whether wide convolutions compute their weight gradients as products. Raises UserError if this task cannot."""
    if asked == "products" and not task.compiled:
        raise UserError(
            "trainer.conv_gradients=products: this task needs second derivatives, or has no fixed shapes\n"
            "  expected trainer.conv_gradients=auto or torch"
        )
    is_faster = device.precision == "fp32" or device.precision == "bf16" and cpu_has_tiles()
    chosen = asked == "products" or asked == "auto" and is_faster and bool(task.compiled)
    return device.torch_device.type == "cpu" and chosen


def set_torch_options(trainer: Trainer, device: torch.device, seed: int) -> None:
    """Set torch's global options and seed its default generators, which draw the initial weights."""
    if trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without it
    if trainer.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(trainer.deterministic)  # only if needed: it imports some of torch's compiler
    torch.backends.cudnn.benchmark = device.type == "cuda" and not trainer.deterministic
    if not trainer.compile:
        skip_compiler_import()
    torch.manual_seed(mix(seed))


def update_maker(config: dict, trainer: Trainer, net: nn.Module, device: Device) -> Callable[..., Update]:
    """Return a function that makes an Update with the run's settings for `net` or a part of it.

    Raises UserError if an optimizer or a schedule of the user's own fails when it is tried.
    """
    optimizer, schedule = build(config["optimizer"]), build(config["schedule"])
    kinds = settings_by_kind(config["optimizer"])
    if not str(config["optimizer"]["_target_"]).startswith("dlrun."):
        try_optimizer(optimizer, kinds, device.torch_device)
    if not is_built_in(config["schedule"]):
        try_schedule(schedule, trainer.epochs)
        schedule = partial(factor, schedule)
    return partial(
        Update,
        optimizer=optimizer,
        schedule=schedule,
        clip=(trainer.clip_value, trainer.clip_norm, trainer.clip_global_norm),
        ema=trainer.ema,
        on_nan=trainer.on_nan,
        precision=device.precision,
        kinds=kinds,
        dist=device.dist,
        buffers=BufferSnapshot(net) if trainer.on_nan == "skip" else None,
    )


def settings_by_kind(optimizer: dict) -> dict[str, dict[str, float]] | None:
    """optimizer.groups, or None if the optimizer treats all kinds of parameters alike."""
    groups = of_runner(optimizer).get("groups")
    return groups or ({} if "kinds" in signature(optimizer["_target_"]).positional else None)


def check_distributed(trainer: Trainer, device: torch.device) -> None:
    """Raise UserError if several processes cannot train with these settings."""
    if trainer.sync_norm and device.type != "cuda":
        raise UserError(
            f"trainer.sync_norm=true on {device.type}: torch synchronises batch normalisation on CUDA only\n"
            "  expected trainer.sync_norm=false, or model.norm=group, which normalises each sample by itself"
        )
