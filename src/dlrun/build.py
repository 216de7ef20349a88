"""From config to objects. The whole config is checked first, against signatures, and every error is reported at once.

No torch until `build`: a config error takes milliseconds.
"""

import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, get_args, get_origin

import yaml

from dlrun.by_data import settle
from dlrun.config.signatures import accepts, is_allowed, mismatch, signature, spec_names
from dlrun.errors import UserError, columns, listed, nearest
from dlrun.spec import PairingError, Spec, Unlabelled
from dlrun.types import Part

PACKAGE = Path(__file__).resolve().parent
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent.parent / "configs"

SECTIONS = {
    "data": Part("dlrun.data", "class"),
    "model": Part("dlrun.models", "function"),
    "task": Part("dlrun.tasks", "class"),
    "optimizer": Part("dlrun.optimizers", "function"),
    "schedule": Part("dlrun.schedules", "function"),
    "trainer": Part("dlrun.trainer", "class"),
}
SWEEP = Part("dlrun.sweep.settings", "class")  # read by the sweeper, not by a run
VALUES = {"mode", "seed", "data_dir", "output_dir", "run_dir", "resume", "init"}
MODES = ("train", "summary")
LABELS = (
    "labels come from class folders or a CSV (data=image_folder),\n  data.spec.classes, or a table's data.spec.targets"
)


class ConfigError(UserError):
    """Everything that is wrong with a config, in one message."""

    def __init__(self, problems: list[str]) -> None:
        many = f"{len(problems)} errors in the config:\n  " if len(problems) > 1 else ""
        super().__init__(many + "\n  ".join(problems))


def check(config: dict, names: dict[str, str] | None = None) -> None:
    """Raise ConfigError or PairingError unless every key is one that something reads and every value fits.

    config: plain dicts and lists, interpolations resolved; what is `auto` gets its value, in place. names: the
    groups' choices, for messages.
    """
    settle(config)
    known = sorted(SECTIONS.keys() | VALUES | {"sweep"})
    unread = sorted(map(str, config.keys() - set(known)))
    expected = listed("    expected one of: ", known, 6)
    problems = [f"nothing reads {key!r}{nearest(key, known)}\n{expected}" for key in unread]
    missing = [name for name in SECTIONS if not config.get(name)]
    problems += [f"the section {name!r} is missing: choose one, as in {name}=..." for name in missing]
    seed = config.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        problems.append(f"seed={_short(seed)}: expected an integer >= 0")
    mode = config.get("mode", "train")
    if mode not in MODES:
        problems.append(f"mode={_short(mode)}: expected {' or '.join(MODES)}{nearest(str(mode), MODES)}")
    for key in sorted(config.keys() & VALUES - {"seed", "mode"}):
        value, may_be_null = config.get(key), key in ("run_dir", "resume", "init")
        if not (value is None and may_be_null or isinstance(value, str) and value and "\0" not in value):
            or_null = " or null" if may_be_null else ""
            problems.append(f"{key}={_short(value)}: expected a path{or_null} (a number is written as in ./5)")
    for name, part in SECTIONS.items():
        if names and name not in names and config.get(name):
            problems.append(f"{name}=[...]: several options at once; expected one")
        elif config.get(name):
            problems += _problems(config[name], part, name)
    if config.get("sweep"):
        problems += _problems(config["sweep"], SWEEP, "sweep")
    if not problems and config.get("init") and (weights := of_runner(config["model"]).get("weights")):
        problems.append(f"init={config['init']} and model.weights={weights}: expected one of them")
    if problems:
        raise ConfigError(problems)
    _check_pairing(config, names or {})
    _check_net(config, names or {})


def check_section(name: str, node: object) -> None:
    """Raise ConfigError unless every key of one section is one that is read and has a value that fits."""
    settle({name: node})
    if problems := _problems(node, SWEEP if name == "sweep" else SECTIONS[name], name):
        raise ConfigError(problems)


def _problems(node: object, part: Part, path: str) -> list[str]:
    """What is wrong with one `_target_` config and those within it."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        return [f"{path}={node!r}: expected a mapping with a _target_ (choose an option of the group instead)"]
    target = node["_target_"]
    if not _is_allowed(target, part):
        return [
            f"{path}._target_={target!r} is not allowed here: expected a {part.kind} in {part.within}"
            + (" or torch.optim" if path == "optimizer" else "")
            + ", or in a package of your own named in the environment variable DL_RUN_ALLOW"
        ]
    try:
        found = signature(target)
    except UserError as error:
        return [f"{path}._target_={error}"]
    if not _is_allowed(found.target, part):
        where = f"{target!r} is {found.target}, which is not allowed here"
        return [f"{path}._target_={where}: expected a {part.kind} in {part.within}"]
    if found.kind != part.kind and not target.startswith("torch."):
        return [f"{path}._target_={target!r} is a {found.kind}: expected a {part.kind}"]
    problems = []
    for key, value in node.items():
        if key == "_target_" or path == "model" and key in of_runner(node):
            continue
        if key not in found.keys:
            name, near = target.rpartition(".")[2], nearest(str(key), found.keys)
            has = listed(f"    {name} has: ", sorted(found.keys), 6) if found.keys else f"    {name} has no keys"
            problems.append(f"{path}.{key}: {name} has no {key!r}{near}\n{has}")
            continue
        inner = _part(found.keys[key])
        if inner is not None:
            wrong = _problems(value, inner, f"{path}.{key}")
            kinds = spec_names(found.keys[key])
            if not wrong and inner.within == "dlrun.spec" and value["_target_"].rpartition(".")[2] not in kinds:
                wrong = [f"{path}.{key}._target_={value['_target_']!r}: expected dlrun.spec.{' or '.join(kinds)}"]
            problems += wrong
        elif _names_target(value):
            problems.append(f"{path}.{key}={_short(value)}: nothing is made here; expected values without _target_")
        elif expected := mismatch(value, found.keys[key]):
            problems.append(f"{path}.{key}={_short(value)}: expected {expected}")
    if path == "model":
        problems += _problems_of_weights(of_runner(node))
    missing = found.required - node.keys()
    return problems + [f"{path}.{key} is missing: {target.rpartition('.')[2]} needs it" for key in sorted(missing)]


def _names_target(value: object) -> bool:
    """Whether `build` would make an object of it, or of a part of it."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_names_target, value.values()))
    return isinstance(value, list | tuple) and any(map(_names_target, value))


def of_runner(model: dict) -> dict:
    """The keys of a model's section that its builder does not see: weights (null, imagenet), their published file."""
    return {key: model[key] for key in ("weights", "published") if key in model.keys() - _keys(model)}


def _keys(node: dict) -> set[str]:
    return set(signature(node["_target_"]).keys)


def _problems_of_weights(keys: dict) -> list[str]:
    weights, file = keys.get("weights"), keys.get("published")
    if weights is None:
        return []
    if weights != "imagenet":
        return [f"model.weights={_short(weights)}: expected imagenet or null (weights of your own: init=<path>)"]
    if not isinstance(file, str) or not re.fullmatch(r"[\w-]+-[0-9a-f]{8,64}\.pth", file):
        return [f"model.published={_short(file)}: expected the name of torchvision's file, as in resnet18-f37072fd.pth"]
    return []


def _short(value: object) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or (value if isinstance(value, str) and value else repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _is_allowed(target: str, part: Part) -> bool:
    parts = target.split(".")
    if not all(word.isidentifier() and not word.startswith("_") for word in parts):
        return False
    within = target.startswith((part.within + ".", part.within + "_"))  # readers_points is readers too
    torch_optimizer = part.within == "dlrun.optimizers" and target.startswith("torch.optim.")
    return within or torch_optimizer or is_allowed(parts[0])


def _part(annotation: object) -> Part | None:
    """The kind of nested config that a parameter with this annotation takes, or None for a plain value."""
    if annotation in get_args(Spec):
        return Part("dlrun.spec", "class")
    if get_origin(annotation) is Annotated:
        return next((a for a in get_args(annotation) if isinstance(a, Part)), None)
    return None


def _check_pairing(config: dict, names: dict[str, str]) -> None:
    """Raise PairingError where the model, or the task, does not take the spec that the data gives."""
    data = config["data"]
    for section in ("model", "task") if data.get("spec") else ():
        takes = _takes(config[section])
        if _learns(takes, data):
            continue
        mine, its = (names.get(k) or config[k]["_target_"].rpartition(".")[2] for k in (section, "data"))
        fitting = [name for name, node in _options(section) if _learns(_takes(node), data)]
        sets = [name for name, node in _options("data") if "spec" in node and _learns(takes, node)]
        width = max(len(mine), len(its)) + 12
        kinds = " or ".join(name for name in spec_names(takes) if name != Unlabelled.__name__)
        lacks = not _has_labels(data)
        lists = {f"{section}s for {its}:": fitting or ["none"], f"data for {mine}:": sets}
        room = columns(sys.stderr, 10_000)  # a line each where it is no terminal
        raise PairingError(
            f"{section}={mine} cannot learn from data={its}\n"
            f"  {f'{mine} takes':{width}} {kinds}{' with labels' if lacks else ''}\n"
            f"  {f'{its} gives':{width}} {build(data['spec'])}\n"
            + "\n".join(listed(f"  {lead:{width}} ", found, width + 3, room) for lead, found in lists.items())
            + (f"\n  {LABELS}" if lacks else "")
        )


def _check_net(config: dict, names: dict[str, str]) -> None:
    """Raise PairingError where the task takes another class of network than the model makes, by their annotations."""
    model, task = (names.get(k) or config[k]["_target_"].rpartition(".")[2] for k in ("model", "task"))
    made, taken = (_net(config[k]) for k in ("model", "task"))
    others = {_net(node) for _, node in _options("task")} if made != taken else set()
    if made == taken or taken == "nn.Module" and made not in others:  # a class of the user's own is a module
        return
    lists = {
        f"models for {task}:": [name for name, node in _options("model") if _net(node) == taken],
        f"tasks for {model}:": [name for name, node in _options("task") if _net(node) == made],
    }
    width, room = max(map(len, lists)), columns(sys.stderr, 10_000)
    kinds = {"nn.Module": "a plain network, of inputs to outputs"}
    raise PairingError(
        f"task={task} cannot train model={model}\n"
        f"  {f'{task} takes':{width}} {kinds.get(taken, taken)}\n"
        f"  {f'{model} makes':{width}} {kinds.get(made, made)}\n"
        + "\n".join(listed(f"  {lead:{width}} ", found, width + 3, room) for lead, found in lists.items())
    )


def _net(node: dict) -> str:
    return signature(node["_target_"]).net


def _takes(node: dict) -> object:
    return signature(node["_target_"]).given.get("spec")


def _learns(takes: object, data: dict) -> bool:
    """Whether a builder whose `spec` is annotated so learns from such data, as far as the data's section tells."""
    is_enough = _has_labels(data) or accepts(takes, Unlabelled.__name__)
    return is_enough and accepts(takes, data["spec"]["_target_"].rpartition(".")[2])


def _has_labels(data: dict) -> bool:
    """False where it is certain that there are none; a folder's layout may be one of classes."""
    spec, layout = data["spec"], data.get("layout", "flat")
    is_text = spec["_target_"].endswith(".Tokens")  # each of them has a class
    return "classes" not in spec or bool(spec["classes"] or spec.get("targets")) or layout != "flat" or is_text


def _options(group: str) -> list[tuple[str, dict]]:
    """Every option of a group that names a target, with its own section, read as plain YAML."""
    found = []
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        node = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        found.append((path.stem, node.get(group, node)))
    return [(name, node) for name, node in found if "_target_" in node]


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
    if not spec.outputs and not accepts(_takes(node), Unlabelled.__name__):
        fitting = [name for name, other in _options("model") if accepts(_takes(other), Unlabelled.__name__)]
        raise PairingError(
            f"the data gives {spec}, and {node['_target_'].rpartition('.')[2]} needs labels\n"
            + listed("  models that do without: ", fitting, 26, columns(sys.stderr, 10_000))
            + f"\n  {LABELS}"
        )
    return make(spec)
