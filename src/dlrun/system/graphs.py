"""CUDA graphs of training steps: forward and backward passes are recorded once per kind of step and then replayed.

A replay launches all kernels of a pass at once, which pays where a step consists of many short ones. Source: torch's
documentation, "CUDA semantics", section "CUDA graphs".
"""

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM = 3  # steps of a kind that run without a graph: they choose kernels and set up libraries
MOST = 8  # kinds of steps with graphs (batch sizes, frozen layers); further kinds run without

Learn = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Recorded:
    """A step's two graphs, and the tensors that they read and write: inputs, loss, metrics, gradients."""

    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    loss: Tensor
    metrics: dict[str, Tensor]
    grads: list[tuple[nn.Parameter, Tensor]]


class StepGraphs:
    """Runs a step's `learn` and `backward` as CUDA graphs from its fourth time on.

    learn: (*inputs) -> (loss, metrics); it must not wait for the device. backward: accumulates the loss's gradients in
    `params`, which have none before. Random numbers come from torch's default generator of the device, which is seeded
    before each step: a replay draws what the step would draw. If CUDA refuses to record, all steps run without graphs,
    with a warning that states the reason.
    """

    def __init__(self, learn: Learn, backward: Callable[[Tensor], None], params: list[nn.Parameter]) -> None:
        self.learn, self.run_backward, self.params = learn, backward, params
        self.seen: Counter[Hashable] = Counter()
        self.recorded: dict[Hashable, Recorded] = {}
        self.current: Recorded | None = None
        self.is_refused = False

    def forward(self, key: Hashable, *inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the metrics of a step. key: all that changes what `learn` does, besides shapes."""
        kind = (key, *((each.shape, each.dtype, each.stride()) for each in inputs))
        self.seen[kind] += 1
        self.current = self.recorded.get(kind)
        if self.current is None and self.seen[kind] > WARM and len(self.recorded) < MOST and not self.is_refused:
            self.current = self._record(kind, inputs)
        if self.current is None:
            return self.learn(*inputs)
        for static, each in zip(self.current.inputs, inputs, strict=True):
            static.copy_(each)
        self.current.forward.replay()
        return self.current.loss, {name: value.clone() for name, value in self.current.metrics.items()}

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of the step that `forward` returned the loss of."""
        if self.current is None:
            self.run_backward(loss)
            return
        self.current.backward.replay()
        for param, grad in self.current.grads:
            param.grad = grad

    def _record(self, kind: Hashable, inputs: tuple[Tensor, ...]) -> Recorded | None:
        """Record a step without running it. All graphs share memory, because no two steps overlap."""
        static = tuple(each.clone() for each in inputs)
        pool = next(iter(self.recorded.values())).forward.pool() if self.recorded else None
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(forward, pool=pool, capture_error_mode="thread_local"):
                loss, metrics = self.learn(*static)
            with torch.cuda.graph(backward, pool=forward.pool(), capture_error_mode="thread_local"):
                self.run_backward(loss)
        except RuntimeError as error:
            self.is_refused = True
            for param in self.params:
                param.grad = None
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"steps run without CUDA graphs: {reason}\n  to silence this: trainer.cuda_graph=false", stacklevel=2
            )
            return None
        grads = [(param, param.grad) for param in self.params if param.grad is not None]
        self.recorded[kind] = Recorded(forward, backward, static, loss.detach(), metrics, grads)
        for param in self.params:
            param.grad = None
        return self.recorded[kind]


def why_not(device: torch.device, is_compiled: bool, processes: int) -> str:
    """Why steps cannot be CUDA graphs here; "" if they can."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if is_compiled:
        return "trainer.compile=true compiles the steps"
    if processes > 1:
        return f"{processes} processes wait for each other in a step"
    return ""
