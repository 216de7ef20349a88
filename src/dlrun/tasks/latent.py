"""A figure of a code of two numbers: where the pictures of each class lie (book section 12.1, Hinton 2006)."""

from collections.abc import Iterator

import torch

from dlrun.plots import new_figure


def latent_map(task: object, batches: Iterator, spec: object) -> object:
    """The mean codes of all pictures in `batches`, in the colour of their class."""
    net = task.evaluated()
    parts = [(net(x)[0].float().cpu(), y.cpu()) for x, y in batches]
    z, y = torch.cat([p for p, _ in parts]).numpy(), torch.cat([p for _, p in parts]).numpy()
    figure, axes = new_figure(7.2, 6.0)
    for k in range(spec.classes or 1):
        mine = z[y == k] if spec.classes else z
        label = spec.labels[k] if spec.labels else str(k)
        axes.scatter(*mine.T, s=4, color=f"C{k % 10}", label=label, linewidths=0)
    if spec.classes and spec.classes <= 20:
        axes.legend(markerscale=3, loc="upper right")
    axes.set(xlabel="z1", ylabel="z2", title="test: mean codes")
    axes.set_aspect("equal", adjustable="datalim")
    return figure
