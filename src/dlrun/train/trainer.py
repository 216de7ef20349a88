"""The settings of training: the keys of configs/trainer/, checked before anything runs."""

from dataclasses import dataclass
from typing import Literal

from dlrun.types import Count, Index, Keep, NonNegative, Positive, Probability, Processes


@dataclass(frozen=True)
class Trainer:
    """The settings of training. configs/trainer/default.yaml explains every key, with its unit."""

    epochs: Count
    max_steps: Count | None
    max_time: Positive | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    cuda_graph: bool | Literal["auto"]
    conv_gradients: Literal["auto", "torch", "products"]
    deterministic: bool
    clip_value: Positive | None
    clip_norm: Positive | None
    clip_global_norm: Positive | None
    ema: Probability
    on_nan: Literal["stop", "skip"]
    val_every: Count
    monitor: str | None
    test: Literal["best", "last"]
    patience: Count | None
    min_delta: NonNegative
    stop_at: float | None
    log_every: Index
    histograms: bool
    gradient_norms: bool
    checkpoint_every_steps: Count | None
    checkpoint_every_minutes: Positive
    checkpoint_gap: NonNegative
    processes: Processes
    max_restarts: Index
    keep: Keep | None
    keep_every: Count | None
    sync_norm: bool
