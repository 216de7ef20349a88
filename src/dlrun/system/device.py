"""Where and in which precision a network runs, and why."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from dlrun.errors import UserError
from dlrun.system.distributed import ALONE, Distributed

LARGE = (
    1_000_000  # parameters from which a convolutional net gains from bf16 on a CPU that has it (measured: docs/LOG.md)
)
VECTOR = 16  # floats in an AVX-512 register


@dataclass(frozen=True)
class Device:
    """device. precision: fp32, bf16 or fp16. channels_last: memory layout of pictures. why: the precision's reason.

    world: the processes that train together.
    """

    device: torch.device
    precision: str
    channels_last: bool
    why: str
    world: Distributed = ALONE

    @property
    def autocast(self) -> Callable[[], AbstractContextManager]:
        """A fresh context for forward passes; in fp32 one that costs nothing."""
        if self.precision == "fp32":
            return nullcontext
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return partial(torch.autocast, self.device.type, dtype)


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UserError where the device asked for is not there.

    Of several processes on a machine each takes a GPU of its own.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and not cuda or name == "mps" and not mps:
        no_cuda = name == "cuda" and torch.version.cuda is None
        reason = "this build of torch has no CUDA" if no_cuda else f"torch finds no {name} device"
        there = ", ".join(["cpu", *["cuda"] * cuda, *["mps"] * mps])
        raise UserError(
            f"trainer.device={name}: {reason}\n"
            f"  expected one of: {there}\n"
            "  trainer.device=auto takes the best there is"
        )
    if name != "cuda":
        return torch.device(name)
    index, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if index >= there:
        raise UserError(
            f"process {index + 1} on this machine needs a GPU of its own, and there {'is' if there == 1 else 'are'} "
            f"{there}\n  expected trainer.processes={there} at most, or trainer.device=cpu"
        )
    torch.cuda.set_device(index)
    return torch.device(name, index)


def prepare_net(net: nn.Module, device: torch.device, precision: str, world: Distributed = ALONE) -> Device:
    """Moves the net to the device, in place, and chooses its layout and precision."""
    convolutional = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in net.modules())
    channels_last = convolutional and device.type != "mps" and not (device.type == "cpu" and _would_overrun(net))
    net.to(device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
    chosen, why = (precision, "asked for") if precision != "auto" else _choose_precision(net, device, convolutional)
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "trainer.precision=fp16 on the CPU: expected fp32 or bf16 there; fp16 needs trainer.device=cuda"
        )
    return Device(device, chosen, channels_last, why, world)


def compile_parts(net: nn.Module, parts: tuple[str, ...], deterministic: bool) -> None:
    """Have torch compile these parts of a net ("" is all of it), in place: the names in checkpoints stay plain.

    deterministic: kernels are chosen by rule, not by timing them. Raises UserError where there are no parts.
    """
    if not parts:
        raise UserError(
            "trainer.compile=true: torch.compile cannot take the steps of this task: it has no gradients of gradients "
            "(wgan_gp), and\n  makes code for each length anew (policies)\n  expected trainer.compile=false"
        )
    torch._dynamo.config.wrap_top_frame = True  # it passes over nn.Sequential otherwise, without a word
    torch._dynamo.config.recompile_limit = 64  # sizes of batches, in training and not, of all parts together
    from torch._inductor import config  # takes a second, and is needed where something is compiled

    config.deterministic = deterministic  # kernels that are chosen by timing them may sum in another order
    for part in parts:
        net.get_submodule(part).compile(dynamic=False)  # the same code for a batch's size, whatever came before it


def _would_overrun(net: nn.Module) -> bool:
    """Whether oneDNN would write past its memory: it does in the weights' gradient of 1x1 convolutions with a stride,
    channels last, of fewer channels than a vector holds (uxlfoundation/oneDNN issue 6035; torch 2.11 and 2.13).
    """
    return any(
        isinstance(m, nn.Conv2d)
        and set(m.kernel_size) == {1}
        and max(m.stride) > 1
        and m.in_channels // m.groups < VECTOR
        for m in net.modules()
    )


def _choose_precision(net: nn.Module, device: torch.device, convolutional: bool) -> tuple[str, str]:
    if device.type == "cuda":
        if not convolutional:
            return "fp32", "without convolutions bf16 costs digits and gains nothing"
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU has it") if has_bf16 else ("fp32", "this GPU has no bf16")
    if device.type != "cpu":
        return "fp32", f"the safe choice on {device.type}"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    large = convolutional and sum(p.numel() for p in net.parameters()) >= LARGE
    if large and has_bf16:
        return "bf16", "a large convolutional net, and this CPU has bf16 instructions"
    return "fp32", "this CPU has no bf16 instructions" if large else "the net is too small to gain from bf16 on a CPU"
