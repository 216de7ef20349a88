"""The user's own code that a saved run names and that is not here any more: a plugin that was uninstalled. No torch.

A finished run predicts without the code that only trained it (an optimizer, a loss); stand-ins take its place.
"""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from importlib.util import find_spec

from dlrun.config.named import named_of
from dlrun.config.plugins import registered
from dlrun.config.signatures import can_be_own, is_allowed, signature
from dlrun.config.source import source_of
from dlrun.errors import UserError

STAND_INS: dict[str, dict[str, object]] = {
    "optimizer": {
        "_target_": "dlrun.optim.optimizers.sgd",
        **{"lr": 0.1, "momentum": 0.0, "nesterov": False, "dampening": 0.0, "weight_decay": 0.0},
    },
    "schedule": {"_target_": "dlrun.optim.schedules.constant"},
}


def without_training(config: dict, evaluates: bool) -> None:
    """Replace missing code in a finished run's config, in place, that is needed for training only.

    evaluates: whether the loss and the metrics are needed, too.
    """
    for name, stand_in in STAND_INS.items():
        if _is_missing(config.get(name)):
            config[name] = deepcopy(stand_in)
    data, task = config.get("data"), config.get("task")
    augment = data.get("augment") if isinstance(data, dict) else None
    if isinstance(data, dict) and _is_missing(augment):
        data["augment"] = []
    elif isinstance(data, dict) and isinstance(augment, list):
        data["augment"] = [each for each in augment if not _is_missing(each)]
    elif isinstance(data, dict) and isinstance(augment, dict) and isinstance(own := augment.get("own"), list):
        data["augment"] = augment | {"own": [each for each in own if not _is_missing(each)]}
    if evaluates or not isinstance(task, dict) or _is_missing(task):
        return
    keys: dict[str, object] = {}
    with suppress(UserError):  # check.py reports it
        keys = signature(str(task.get("_target_"))).keys
    for key, annotation in keys.items():
        if named := named_of(annotation):
            value = task.get(key)
            if isinstance(value, list):
                task[key] = [each for each in value if not _is_missing(each)]
            elif _is_missing(value) and named.words:
                task[key] = named.words[0]


def require_code(config: dict, where: str) -> None:
    """Raise UserError if the config names code of a package that is missing. where: the run, for the message."""
    for key, target in _targets(config):
        package = target.partition(".")[0]
        is_here = find_spec(package) is not None
        if not _is_missing(target) or is_here and is_allowed(target):  # else a module of it is gone: check.py says so
            continue
        dist = next((source for source, _, name in registered() if name.partition(".")[0] == package), None)
        of = f", a plugin of {dist}," if dist else ","
        allow = f"DL_RUN_ALLOW={package} or dlrun.allow({package!r})"
        raise UserError(
            f"{where}: {key}={target} is code of the package {package!r}{of} which is "
            + (f"not allowed here\n  expected {allow}" if is_here else "not installed\n")
            + ("" if is_here else f"  expected it installed as before, or its folder in PYTHONPATH, with {allow}")
        )


def _targets(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, dotted path) of all code that a config may name."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_" and isinstance(value, str):
                yield path, value
            else:
                yield from _targets(value, f"{path}.{key}" if path else str(key))
    elif path == "task.loss" and isinstance(node, str) and "." in node:
        yield path, node
    elif path in ("task.metrics", "data.augment", "data.augment.own") and isinstance(node, list):
        for each in node:
            if isinstance(each, str) and "." in each:
                yield path, each
            else:
                yield from _targets(each, path)


def _is_missing(node: object) -> bool:
    """Whether a dotted path, or a `_target_` config, names code of another package that cannot be read here."""
    target = node.get("_target_") if isinstance(node, dict) else node
    if not isinstance(target, str) or "." not in target or not can_be_own(target.partition(".")[0]):
        return False
    return not is_allowed(target) or source_of(target.rpartition(".")[0]) is None
