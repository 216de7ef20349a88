"""The order of an epoch: all train samples once, or as many with every class alike. A function of seed and epoch."""

from collections.abc import Callable

import torch
from torch import Tensor

from dlrun.seeds import generator
from dlrun.types import Sampler


def epoch_order(size: int, labels: Callable[[], Tensor], sampler: Sampler, seed: int, epoch: int) -> Tensor:
    """Return the positions in the train split of an epoch's samples, in their order, on the CPU.

    size: of the train split. labels: returns its classes (size,).
    """
    random = generator("cpu", seed, epoch)
    return balanced(labels().cpu(), random) if sampler == "balanced" else torch.randperm(size, generator=random)


def balanced(labels: Tensor, random: torch.Generator) -> Tensor:
    """Return as many positions as there are labels, the same number of every class, shuffled.

    A class with too few samples repeats all of them before any comes again; one with too many leaves a part out, which
    differs between epochs. If the classes do not divide the samples, those that get one more are drawn.
    """
    classes = labels.unique()
    share, rest = divmod(len(labels), len(classes))
    gets_more = torch.randperm(len(classes), generator=random) < rest
    drawn = []
    for label, more in zip(classes, gets_more.tolist(), strict=True):
        of_class, count = (labels == label).nonzero().squeeze(1), share + more
        turns = [torch.randperm(len(of_class), generator=random) for _ in range(-(-count // len(of_class)))]
        drawn.append(of_class[torch.cat(turns)[:count]])
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=random)]
