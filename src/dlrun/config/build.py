"""Build objects from a checked config."""

import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import Parameter
from inspect import signature as signature_of
from types import ModuleType
from typing import Any

from dlrun.config.named import expanded
from dlrun.config.pairing import LABELS, UNLABELLED, group_options, takes_spec
from dlrun.config.signatures import accepts, signature
from dlrun.errors import PairingError, UserError, columns, listed, own_code, raised
from dlrun.spec import Spec

OF_RUNNER = {"model": ("weights", "published"), "optimizer": ("groups",)}


def of_runner(node: dict) -> dict:
    """Return the keys of a model's or an optimizer's section that the runner reads.

    model: `weights` (null, imagenet) and `published`, its file. optimizer: `groups`, settings by kind of parameter.
    A key is left out if the builder has a parameter of that name.
    """
    names = [name for section in OF_RUNNER.values() for name in section]
    return {key: node[key] for key in names if key in node.keys() - _keys(node)}


def _keys(node: dict) -> set[str]:
    return set(signature(node["_target_"]).keys)


def build(node: object) -> Any:
    """Build the object that a `_target_` config names, or a partial function if the runner has to pass arguments.

    The node must have passed `check`, because this imports the code that a config names.
    """
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: build(value) for key, value in node.items()}
    builder = signature(node["_target_"])
    words = {key: expanded(value, builder.keys.get(key)) for key, value in node.items() if key != "_target_"}
    values = {key: build(value) for key, value in words.items()}
    module, _, name = node["_target_"].rpartition(".")
    values = {key: value for key, value in values.items() if key not in of_runner(node)}
    make = _named(module, name, values)
    if module == "dlrun.spec":  # specs are frozen, so their sequences are tuples
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if builder.kind == "class" and not builder.positional:
        if module.partition(".")[0] in ("dlrun", "torch"):
            return make(**values)
        with own_code(f"{node['_target_']}(...)", "an object of these keys"):
            return make(**values)
    make = partial(make, **values)
    return partial(_from_spec, make, node) if [*builder.positional][:1] == ["spec"] else make


def _named(module: str, name: str, keys: Collection[str]) -> Any:
    """Import a function or class. Raises UserError if it is not as its file is now: it was imported before a change."""
    found = imported(module)
    if module.partition(".")[0] in ("dlrun", "torch"):
        return getattr(found, name)
    make, unknown = getattr(found, name, None), ""
    with suppress(TypeError, ValueError):  # it has no signature
        parameters = signature_of(make).parameters if callable(make) else {}
        if not any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
            unknown = next((key for key in keys if key not in parameters), "")
    if make is None or unknown:
        lacks = f"{module}.{name} has no {unknown!r}" if make else f"{module} has no {name!r}"
        raise UserError(
            f"{lacks} as Python imported it: its file has changed since\n"
            f"  expected the module as it is now: importlib.reload({module}), or start Python again"
        )
    return make


def imported(module: str) -> ModuleType:
    """Import a module that a config names. Raises UserError if it is the user's own and fails."""
    if module.split(".")[0] in ("dlrun", "torch"):
        return import_module(module)
    try:
        return import_module(module)
    except Exception as error:  # the user's code raises anything
        raise UserError(
            f"cannot import {module}: {raised(error)}\n"
            f"  expected a module that Python can import; python -c 'import {module}' shows the whole traceback"
        ) from error


def _taking(kinds: list[str]) -> list[tuple[str, object]]:
    """The models that accept one of these kinds of specs, each with the annotation of what it takes."""
    options = [(name, takes_spec(node)) for name, node in group_options("model")]
    return [(name, takes) for name, takes in options if any(accepts(takes, kind) for kind in kinds)]


def _from_spec(make: Callable, node: dict, spec: Spec) -> object:
    """Build a network from the spec of the data. Raises PairingError if it needs labels and the data has none."""
    kinds = [kind.__name__ for kind in type(spec).__mro__]
    if not spec.outputs and not accepts(takes_spec(node), UNLABELLED):
        fitting = [name for name, takes in _taking(kinds) if accepts(takes, UNLABELLED)]
        raise PairingError(
            f"the data gives {spec}, and {node['_target_'].rpartition('.')[2]} needs labels\n"
            + listed("  models without labels: ", fitting, 25, columns(sys.stderr, 10_000))
            + f"\n  {LABELS}"
        )
    if not any(accepts(takes_spec(node), kind) for kind in kinds):  # the kind may be known only after reading
        fitting = [name for name, _ in _taking(kinds)]
        raise PairingError(
            f"the data gives {spec}, from which {node['_target_'].rpartition('.')[2]} cannot learn\n"
            + listed("  models for it: ", fitting, 18, columns(sys.stderr, 10_000))
        )
    return make(spec)
