"""Choose the device, precision and memory format of a network."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from dlrun.errors import UserError
from dlrun.system.distributed import ALONE, Distributed
from dlrun.system.torch_internals import configure_compiler, cpu_has_bf16

LARGE = 1_000_000  # parameters; a cautious bound, not a measured one: small nets gain nothing from bf16 on a CPU
VECTOR = 16  # float32 numbers in an AVX-512 register


@dataclass(frozen=True)
class Device:
    """The device, precision and memory format that a network runs in.

    precision: "fp32", "bf16" or "fp16". channels_last: memory format of images. why: the reason for the precision, for
    the header. dist: the processes that train together.
    """

    torch_device: torch.device
    precision: str
    channels_last: bool
    why: str
    dist: Distributed = ALONE

    @property
    def autocast(self) -> Callable[[], AbstractContextManager]:
        """Makes a context manager for forward passes; a null context in fp32."""
        if self.precision == "fp32":
            return nullcontext
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return partial(torch.autocast, self.torch_device.type, dtype)


def choose_device(name: str) -> torch.device:
    """The torch device for trainer.device; "auto" prefers CUDA, then MPS, then the CPU.

    Each of several processes on a machine gets its own GPU. Raises UserError if there is no such device, or if there
    are more processes than GPUs.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and not cuda or name == "mps" and not mps:
        no_cuda = name == "cuda" and torch.version.cuda is None
        reason = "this build of torch has no CUDA" if no_cuda else f"torch finds no {name} device"
        available = ", ".join(["cpu", *["cuda"] * cuda, *["mps"] * mps])
        raise UserError(
            f"trainer.device={name}: {reason}\n"
            f"  expected one of: {available}\n"
            "  trainer.device=auto chooses the best available device"
        )
    if name != "cuda":
        return torch.device(name)
    index, num_gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if index >= num_gpus:
        raise UserError(
            f"process {index + 1} on this machine needs its own GPU, but there {'is' if num_gpus == 1 else 'are'} only "
            f"{num_gpus}\n  expected trainer.processes={num_gpus} at most, or trainer.device=cpu"
        )
    torch.cuda.set_device(index)
    return torch.device(name, index)


def prepare_net(net: nn.Module, device: torch.device, precision: str, dist: Distributed = ALONE) -> Device:
    """Move the net to the device, in place, and choose its memory format and precision.

    precision: "auto", "fp32", "bf16" or "fp16". Raises UserError for fp16 on a CPU.
    """
    convolutional = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in net.modules())
    channels_last = convolutional and device.type != "mps" and not (device.type == "cpu" and _would_overrun(net))
    net.to(device)
    if channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    chosen, why = (precision, "asked for") if precision != "auto" else _choose_precision(net, device, convolutional)
    if precision == "fp16" and device.type == "cpu":
        raise UserError(
            "trainer.precision=fp16 on the CPU: expected fp32 or bf16 there; fp16 needs trainer.device=cuda"
        )
    return Device(device, chosen, channels_last, why, dist)


def compile_parts(net: nn.Module, parts: tuple[str, ...], deterministic: bool) -> None:
    """Compile submodules of a net by name ("" is the whole net), in place: parameters keep their names.

    deterministic: choose kernels by rule, not by timing them. Raises UserError if there are no names.
    """
    if not parts:
        raise UserError(
            "trainer.compile=true: torch.compile does not support this task: it lacks second derivatives (wgan_gp), "
            "and\n  recompiles for every new length (policies)\n  expected trainer.compile=false"
        )
    configure_compiler(deterministic)
    for part in parts:
        net.get_submodule(part).compile(dynamic=False)  # the code for a batch size must not depend on earlier sizes


def _would_overrun(net: nn.Module) -> bool:
    """Whether oneDNN would write beyond its memory in channels_last format.

    It does in the weight gradient of strided 1x1 convolutions with fewer input channels than a vector register holds
    (uxlfoundation/oneDNN issue 6035; torch 2.11 and 2.13).
    """
    return any(
        isinstance(m, nn.Conv2d)
        and set(m.kernel_size) == {1}
        and max(m.stride) > 1
        and m.in_channels // m.groups < VECTOR
        for m in net.modules()
    )


def _choose_precision(net: nn.Module, device: torch.device, convolutional: bool) -> tuple[str, str]:
    """The precision for trainer.precision=auto, and the reason."""
    if device.type == "cuda":
        if not convolutional:
            return "fp32", "without convolutions bf16 loses accuracy and gains no speed"
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU has it") if has_bf16 else ("fp32", "this GPU has no bf16")
    if device.type != "cpu":
        return "fp32", f"the safe choice on {device.type}"
    large = convolutional and sum(p.numel() for p in net.parameters()) >= LARGE
    if large and cpu_has_bf16():
        return "bf16", "a large convolutional net, and this CPU has bf16 instructions"
    return "fp32", "this CPU has no bf16 instructions" if large else "the net is too small to gain from bf16 on a CPU"


def exact_dtype(device: torch.device) -> torch.dtype:
    """The type for sums over many samples: float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float64 if device.type != "mps" else torch.float32
