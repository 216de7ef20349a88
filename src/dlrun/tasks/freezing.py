"""Which weights learn, from when on, and how fast: frozen layers, unfreezing by the clock, rates that differ by layer.

Source: book section 15.4 (a frozen body below a new head); the fine-tuning recipe of Chollet 2017, "Deep learning with
Python", section 5.3.2: train the head, then unfreeze from the top; discriminative rates of Howard and Ruder 2018,
section 3.2. What learns is a function of the clock: there is nothing to save.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import partial
from math import inf

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlrun.clock import Clock
from dlrun.errors import UserError

Group = tuple[float, list[nn.Parameter]]


class Freezing:
    """freeze: patterns of modules' or parameters' names; !pattern takes some out again; head is what is not of the
    net's BACKBONE or, where it names none, the last layer that has weights, whatever its name, and the heads aux* that
    only training has. unfreeze: from which epoch on what was frozen learns, by pattern (half an epoch is 0.5; the
    earliest counts). rates: factors on the learning rate, by pattern (the last that matches counts).

    A frozen BatchNorm keeps its statistics: it stays in evaluation mode. Raises UserError where a pattern matches
    nothing, or nothing would learn.
    """

    def __init__(
        self, net: nn.Module, freeze: list[str], unfreeze: list[tuple[str, float]], rates: list[tuple[str, float]]
    ) -> None:
        self.params = {name: param for name, param in net.named_parameters() if param.requires_grad}
        frozen: set[str] = set()
        find = partial(matching, self.params, backbone=getattr(net, "BACKBONE", ()))
        for pattern in freeze:
            hits = find(pattern.removeprefix("!"), f"task.freeze has {pattern!r}")
            frozen = frozen - hits if pattern.startswith("!") else frozen | hits
        self.start = {name: inf if name in frozen else 0.0 for name in self.params}  # epochs
        for pattern, epoch in unfreeze:
            hits = find(pattern, f"task.unfreeze has {pattern!r}") & frozen
            if not hits:
                there = named(name for name in self.params if name in frozen)
                raise UserError(
                    f"task.unfreeze has {pattern!r}, which is not frozen\n"
                    f"  expected patterns over what task.freeze={freeze} matches: {there or 'nothing'}"
                )
            self.start |= {name: min(epoch, self.start[name]) for name in hits}
        rate = dict.fromkeys(self.params, 1.0)
        for pattern, factor in rates:
            rate |= dict.fromkeys(find(pattern, f"task.lr_multipliers has {pattern!r}"), factor)
        if frozen and not any(start == 0 for start in self.start.values()):
            raise UserError(
                f"task.freeze={freeze} leaves nothing that learns from the start, of {named(self.params)}\n"
                "  expected a part that does, as in task.freeze=['*','!head']"
            )
        self.norms = [(name, m) for name, m in net.named_modules() if isinstance(m, _BatchNorm)]
        self.moments = sorted({start for start in self.start.values() if 0 < start < inf})
        # by moment too: torch's fused SGD cannot take weights with and without momentum in one group
        kinds = sorted({(-rate[name], start) for name, start in self.start.items() if start < inf})
        self.groups: list[Group] = [
            (-factor, [p for name, p in self.params.items() if (-rate[name], self.start[name]) == (factor, start)])
            for factor, start in kinds
        ]
        self._set(0)

    def at(self, clock: Clock) -> None:
        """Before a step: what learns at this moment. Costs nothing where nothing is frozen."""
        epoch = clock.epoch + clock.batch / clock.steps_per_epoch + 1e-9
        passed = sum(moment <= epoch for moment in self.moments)
        if passed != self.passed:
            self._set(passed)
        if self.resting and self.resting[0].training:  # the net was set to train as a whole
            for norm in self.resting:
                norm.eval()

    def _set(self, passed: int) -> None:
        epoch = self.moments[passed - 1] if passed else 0.0
        for name, param in self.params.items():
            param.requires_grad_(self.start[name] <= epoch)
        was = getattr(self, "resting", [])
        self.resting = [norm for name, norm in self.norms if self.start.get(f"{name}.weight", 0.0) > epoch]
        for norm in was:
            norm.train(norm not in self.resting)
        self.passed = passed


def matching(names: Iterable[str], pattern: str, said: str, backbone: tuple[str, ...] = ()) -> set[str]:
    """The parameters that a pattern names, or whose module it names. Raises UserError where there are none."""
    names = list(names)
    hits = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
    if pattern == "head" and backbone:
        hits = {name for name in names if not name.startswith(backbone)}
    elif pattern == "head" and names and not hits:
        last = names[-1].rpartition(".")[0]
        hits = {name for name in names if name.rpartition(".")[0] == last or name.startswith("aux")}
    if not hits:
        raise UserError(f"{said}, which matches nothing\n  expected patterns over the parameters: {named(names)}")
    return hits


def named(names: Iterable[str]) -> str:
    """Names of parameters, or of their modules where they are many."""
    found = whole = list(names)
    for depth in (4, 3, 2, 1):
        if len(found) > 30:
            parts = [name.split(".") for name in whole]
            found = list(dict.fromkeys(".".join(p[:depth]) + (".*" if len(p) > depth else "") for p in parts))
    return ", ".join(found[:30]) + (f" and {len(found) - 30} more" if len(found) > 30 else "")
