"""Fine-tuning: frozen layers, unfreezing at set epochs, and learning rates that differ by layer.

Source: the book, section 15.4 (a frozen backbone below a new head); Chollet 2017, "Deep learning with Python", section
5.3.2 (train the head, then unfreeze from the top); Howard and Ruder 2018, section 3.2 (discriminative rates). Whether a
weight learns is a function of the clock, so there is no state to save.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import partial
from math import inf

from torch import nn

from dlrun.clock import Clock
from dlrun.errors import UserError
from dlrun.models.options import options_of
from dlrun.system.torch_internals import BatchNorm

Group = tuple[float, list[nn.Parameter]]


class Freezing:
    """Sets which parameters of a net learn, and at what rate.

    freeze: patterns over names of modules or parameters; "!pattern" excludes some again.
    unfreeze: pairs of a pattern and the epoch from which frozen parameters learn (half an epoch is 0.5; of several
    matches the earliest counts). freeze_from: pairs of a pattern and the epoch from which parameters no longer learn
    (the earliest, too). lr_multipliers: pairs of a pattern and a factor on the learning rate (of several matches the
    last counts).
    The pattern "head" means all parameters outside the net's BACKBONE. If the net names no backbone, it means the last
    layer that has weights, and the auxiliary heads (aux*).

    A frozen batch normalisation stays in evaluation mode and keeps its statistics. Raises UserError if a pattern
    matches nothing or if nothing would learn.
    """

    def __init__(
        self,
        net: nn.Module,
        freeze: list[str],
        unfreeze: list[tuple[str, float]],
        freeze_from: list[tuple[str, float]],
        lr_multipliers: list[tuple[str, float]],
    ) -> None:
        self.params = {name: param for name, param in net.named_parameters() if param.requires_grad}
        frozen: set[str] = set()
        find = partial(matching, self.params, backbone=options_of(net).BACKBONE)
        for pattern in freeze:
            hits = find(pattern.removeprefix("!"), f"task.freeze has {pattern!r}")
            frozen = frozen - hits if pattern.startswith("!") else frozen | hits
        self.start = {name: inf if name in frozen else 0.0 for name in self.params}  # epochs
        for pattern, epoch in unfreeze:
            hits = find(pattern, f"task.unfreeze has {pattern!r}") & frozen
            if not hits:
                matches = named(name for name in self.params if name in frozen)
                raise UserError(
                    f"task.unfreeze has {pattern!r}, which is not frozen\n"
                    f"  expected patterns over the parameters that task.freeze={freeze} matches: {matches or 'none'}"
                )
            self.start |= {name: min(epoch, self.start[name]) for name in hits}
        self.end = dict.fromkeys(self.params, inf)  # epochs
        for pattern, epoch in freeze_from:
            hits = find(pattern, f"task.freeze_from has {pattern!r}")
            self.end |= {name: min(epoch, self.end[name]) for name in hits}
        rate = dict.fromkeys(self.params, 1.0)
        for pattern, factor in lr_multipliers:
            rate |= dict.fromkeys(find(pattern, f"task.lr_multipliers has {pattern!r}"), factor)
        if frozen and not any(start == 0 for start in self.start.values()):
            raise UserError(
                f"task.freeze={freeze} freezes every parameter at the start: {named(self.params)}\n"
                "  expected at least one trainable layer, such as task.freeze=['*','!head']"
            )
        self.norms = [(name, m) for name, m in net.named_modules() if isinstance(m, BatchNorm)]
        self.moments = sorted({moment for moment in (*self.start.values(), *self.end.values()) if 0 < moment < inf})
        # grouped by start too: torch's fused SGD does not accept weights with and without momentum in one group
        kinds = sorted({(-rate[name], start) for name, start in self.start.items() if start < inf})
        self.groups: list[Group] = [
            (-factor, [p for name, p in self.params.items() if (-rate[name], self.start[name]) == (factor, start)])
            for factor, start in kinds
        ]
        self._set(0)

    def at(self, clock: Clock) -> None:
        """Freeze and unfreeze for the step at this time. Costs nothing if nothing is frozen."""
        epoch = clock.epoch + clock.batch / clock.steps_per_epoch + 1e-9
        passed = sum(moment <= epoch for moment in self.moments)
        if passed != self.passed:
            self._set(passed)
        if self.resting and self.resting[0].training:  # net.train() has reached the frozen norms too
            for norm in self.resting:
                norm.eval()

    def _learns(self, name: str, epoch: float) -> bool:
        """Whether a parameter learns at this time. A norm whose scale is not among the parameters is never at rest."""
        return self.start.get(name, 0.0) <= epoch < self.end.get(name, inf)

    def _set(self, passed: int) -> None:
        epoch = self.moments[passed - 1] if passed else 0.0
        for name, param in self.params.items():
            param.requires_grad_(self._learns(name, epoch))
        was = getattr(self, "resting", [])
        self.resting = [norm for name, norm in self.norms if not self._learns(f"{name}.weight", epoch)]
        for norm in was:
            norm.train(norm not in self.resting)
        self.passed = passed


def matching(names: Iterable[str], pattern: str, subject: str, backbone: tuple[str, ...] = ()) -> set[str]:
    """The parameters whose name, or whose module's name, matches. Raises UserError if there are none.

    subject: the beginning of the error message.
    """
    names = list(names)
    hits = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
    if pattern == "head" and backbone:
        hits = {name for name in names if not name.startswith(backbone)}
    elif pattern == "head" and names and not hits:
        last = names[-1].rpartition(".")[0]
        hits = {name for name in names if name.rpartition(".")[0] == last or name.startswith("aux")}
    if not hits:
        raise UserError(f"{subject}, which matches nothing\n  expected patterns over the parameters: {named(names)}")
    return hits


def named(names: Iterable[str]) -> str:
    """List parameters by name, or by module if there are more than 30."""
    shown = whole = list(names)
    for depth in (4, 3, 2, 1):
        if len(shown) > 30:
            parts = [name.split(".") for name in whole]
            shown = list(dict.fromkeys(".".join(p[:depth]) + (".*" if len(p) > depth else "") for p in parts))
    return ", ".join(shown[:30]) + (f" and {len(shown) - 30} more" if len(shown) > 30 else "")
