"""From a checked config to objects."""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module

from dlrun.config.pairing import LABELS, group_options, takes_spec
from dlrun.config.signatures import accepts, signature
from dlrun.errors import PairingError, columns, listed
from dlrun.spec import Spec, Unlabelled


def of_runner(model: dict) -> dict:
    """The keys of a model's section that its builder does not see: weights (null, imagenet), their published file."""
    return {key: model[key] for key in ("weights", "published") if key in model.keys() - _keys(model)}


def _keys(node: dict) -> set[str]:
    return set(signature(node["_target_"]).keys)


def build(node: object) -> object:
    """A `_target_` config as an object, or as a partial function where the runner has to hand something over.

    The node must have passed `check`: this is where code named in a config is imported.
    """
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {key: build(value) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return values
    module, _, name = node["_target_"].rpartition(".")
    made = getattr(import_module(module), name)
    if module == "dlrun.spec":  # specs are frozen, and so are their sequences
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    found = signature(node["_target_"])
    values = {key: value for key, value in values.items() if key not in of_runner(node)}
    if found.kind == "class" and not found.given:
        return made(**values)
    made = partial(made, **values)
    return partial(_from_spec, made, node) if found.kind == "function" and "spec" in found.given else made


def _from_spec(make: Callable, node: dict, spec: Spec) -> object:
    """A net from what the data gives. Raises PairingError where it turned out that it has no labels to learn."""
    if not spec.outputs and not accepts(takes_spec(node), Unlabelled.__name__):
        fitting = [name for name, other in group_options("model") if accepts(takes_spec(other), Unlabelled.__name__)]
        raise PairingError(
            f"the data gives {spec}, and {node['_target_'].rpartition('.')[2]} needs labels\n"
            + listed("  models that do without: ", fitting, 26, columns(sys.stderr, 10_000))
            + f"\n  {LABELS}"
        )
    return make(spec)
