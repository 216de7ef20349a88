"""Check every key and value of a config against signatures before anything is built; report all errors at once.

No torch, so that a config error takes milliseconds.
"""

import re
from typing import Annotated, Any, Union, get_args, get_origin

from dlrun.config.auto import resolve_auto
from dlrun.config.build import OF_RUNNER, of_runner
from dlrun.config.check_pairing import check_net, check_pairing
from dlrun.config.named import WORD, problems_of_named
from dlrun.config.renamed import renamed
from dlrun.config.signatures import Signature, is_allowed, of_rest, signature, spec_names
from dlrun.config.values import mismatch, written_as_text
from dlrun.errors import ConfigError, UserError, listed, nearest
from dlrun.spec import Spec
from dlrun.types import KINDS, Nested, NonNegative, Positive, RunSeed, is_text

SECTIONS = {
    "data": Nested("dlrun.data", "class"),
    "model": Nested("dlrun.models", "function"),
    "task": Nested("dlrun.tasks", "class"),
    "optimizer": Nested("dlrun.optim.optimizers", "function"),
    "schedule": Nested("dlrun.optim.schedules", "function"),
    "trainer": Nested("dlrun.train.trainer", "class"),
}
SWEEP = Nested("dlrun.sweep.settings", "class")  # read by the sweeper, not by a run
TRACKER = Nested("dlrun.tracking.trackers", "class")  # of each tracker in the section `tracker`
VALUES = {"mode", "seed", "data_dir", "output_dir", "run_dir", "resume", "resume_allow", "init"}
MODES = ("train", "summary", "find_lr", "find_batch", "time")
CODE = ("data", "model", "task", "optimizer", "schedule")  # groups of which code can be an option
CALLED = ("model", "optimizer")  # by the runner, so that a class does as well as a function
SETTINGS = {"lr": Positive, "weight_decay": NonNegative}  # of optimizer.groups


def check(config: dict, names: dict[str, str] | None = None) -> None:
    """Raise ConfigError or PairingError unless every key is known and every value is valid.

    config: plain dicts and lists with interpolations resolved. Values of `auto` are replaced in place.
    names: the chosen option of each group, for messages.
    """
    resolve_auto(config)
    known = sorted(SECTIONS.keys() | VALUES | {"sweep", "tracker"})
    unread = sorted(map(str, config.keys() - set(known)))
    expected = listed("    expected one of: ", known, 6)
    problems = [f"there is no key {key!r}{nearest(key, known)}\n{expected}" for key in unread]
    missing = [name for name in SECTIONS if not config.get(name)]
    problems += [f"the section {name!r} is missing: choose an option with {name}=..." for name in missing]
    seed = config.get("seed", 0)
    if wanted := mismatch(seed, RunSeed):
        problems.append(f"seed={_short(seed)}: expected {wanted}")
    mode = config.get("mode", "train")
    if mode not in MODES:
        problems.append(
            f"mode={_short(mode)}: expected {', '.join(MODES[:-1])} or {MODES[-1]}{nearest(str(mode), MODES)}"
        )
    if (allowed := config.get("resume_allow")) not in (None, "changes"):
        problems.append(f"resume.allow={_short(allowed)}: expected changes, or null")
    for key in sorted(config.keys() & VALUES - {"seed", "mode", "resume_allow"}):
        value, may_be_null = config.get(key), key in ("run_dir", "resume", "init")
        if not (value is None and may_be_null or value and is_text(value)):
            or_null = " or null" if may_be_null else ""
            problems.append(f"{key}={_short(value)}: expected a path{or_null} (write a number as ./5)")
    for name, nested in SECTIONS.items():
        if names and name not in names and config.get(name):
            problems.append(f"{name}=[...]: several options at once; expected one")
        elif config.get(name):
            problems += _problems(config[name], nested, name)
    if config.get("sweep"):
        problems += _problems(config["sweep"], SWEEP, "sweep")
    problems += _problems_of_trackers(config.get("tracker"))
    if not problems and config.get("init") and (weights := of_runner(config["model"]).get("weights")):
        problems.append(f"init={config['init']} and model.weights={weights}: expected only one of the two")
    if problems:
        raise ConfigError(problems)
    check_pairing(config, names or {})
    check_net(config, names or {})


def is_path(group: str, word: str) -> bool:
    """Whether a choice of this group is the dotted path of code."""
    return group in CODE and "." in word and bool(WORD.fullmatch(word))


def may_be_chosen(group: str, target: str) -> bool:
    """Whether a config may name this dotted path as an option of the group."""
    return _is_allowed(target, SECTIONS[group])


def check_section(name: str, node: object) -> None:
    """Raise ConfigError unless every key of one section is known and every value is valid."""
    resolve_auto({name: node})
    if name == "tracker":
        problems = _problems_of_trackers(node)
    else:
        problems = _problems(node, SWEEP if name == "sweep" else SECTIONS[name], name)
    if problems:
        raise ConfigError(problems)


def _problems(node: object, nested: Nested, path: str) -> list[str]:
    """Describe the errors of one `_target_` config and of those nested in it."""
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        return [f"{path}={node!r}: expected a mapping with a _target_ (choose an option of the group instead)"]
    if problem := problem_of_target(node["_target_"], nested, path):
        return [problem]
    builder, for_runner = signature(node["_target_"]), of_runner(node) if path in OF_RUNNER else {}
    problems = []
    for key, value in node.items():
        if key != "_target_" and not (key in for_runner and key in OF_RUNNER[path]):
            problems += _problems_of_key(builder, key, value, path)
    if path == "model":
        problems += _problems_of_weights(for_runner)
    if path == "optimizer":
        problems += _problems_of_groups(for_runner.get("groups") or {})
    name = node["_target_"].rpartition(".")[2]
    return problems + [f"{path}.{key} is missing: {name} needs it" for key in sorted(builder.required - node.keys())]


def problem_of_target(target: str, nested: Nested, path: str) -> str | None:
    """Describe why a `_target_` cannot be built here; None if it can."""
    if not _is_allowed(target, nested):
        return (
            f"{path}._target_={target!r} is not allowed here: expected a {nested.kind} in {nested.within}"
            + (" or torch.optim" if path == "optimizer" else "")
            + ", or in your own package if the environment variable DL_RUN_ALLOW names it"
        )
    try:
        builder = signature(target)
    except UserError as error:
        return f"{path}._target_={error}"
    is_of_torch = path == "optimizer" and target.startswith("torch.") and builder.target.startswith("torch.optim.")
    if not _is_allowed(builder.target, nested) and not is_of_torch:  # torch.optim.Muon is torch.optim._muon.Muon
        where = f"{target!r} is {builder.target}, which is not allowed here"
        return f"{path}._target_={where}: expected a {nested.kind} in {nested.within}"
    if builder.kind != nested.kind and not (path in CALLED and builder.positional):
        return f"{path}._target_={target!r} is a {builder.kind}: expected a {nested.kind}"
    return None


def _problems_of_key(builder: Signature, key: object, value: Any, path: str) -> list[str]:
    """Describe the errors of one key of a `_target_` config."""
    if key not in builder.keys:
        if new := renamed(path, str(key), builder.keys):
            return [f"{path}.{key}={value}: this key was renamed\n    expected {path}.{new}={value}"]
        name, near = builder.target.rpartition(".")[2], nearest(str(key), builder.keys)
        has = listed(f"    {name} has: ", sorted(builder.keys), 6) if builder.keys else f"    {name} has no keys"
        has += of_rest(builder)
        if path in ("optimizer", "schedule"):  # whose keys are also set by models and experiments
            hint = f"    if the model or the experiment sets it: leave it out with '~{path}.{key}'"
            has += "\n" + listed("", [hint], 6)
        return [f"{path}.{key}: {name} has no {key!r}{near}\n{has}"]
    annotation = builder.keys[key]
    if (problems := problems_of_named(value, annotation, f"{path}.{key}")) is not None:
        return problems
    is_left_out = value is None and type(None) in get_args(annotation)
    if (inner := nested_kind(annotation)) and not is_left_out:
        wrong, kinds = _problems(value, inner, f"{path}.{key}"), spec_names(annotation)
        if not wrong and inner.within == "dlrun.spec" and value["_target_"].rpartition(".")[2] not in kinds:
            return [f"{path}.{key}._target_={value['_target_']!r}: expected dlrun.spec.{' or '.join(kinds)}"]
        return wrong
    if _names_target(value):
        return [f"{path}.{key}={_short(value)}: no object is built here; expected values without _target_"]
    if not (expected := mismatch(value, annotation)):
        return []
    hint = written_as_text(value, annotation, f"{path}.{key}")
    return [f"{path}.{key}={_short(value)}: expected {expected}{hint}"]


def _problems_of_trackers(section: object) -> list[str]:
    """Describe the errors of the section `tracker`, which has a `_target_` config for each tracker, or none."""
    if not isinstance(section or {}, dict):
        return [f"tracker={_short(section)}: expected none, wandb, or several such as 'tracker=[wandb,mlflow]'"]
    nodes = section.items() if isinstance(section, dict) else ()
    return [problem for name, node in nodes for problem in _problems(node, TRACKER, f"tracker.{name}")]


def _names_target(value: object) -> bool:
    """Whether `build` would turn the value, or a value nested in it, into an object."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_names_target, value.values()))
    return isinstance(value, list | tuple) and any(map(_names_target, value))


def _problems_of_weights(keys: dict) -> list[str]:
    weights, file = keys.get("weights"), keys.get("published")
    if weights is None:
        return []
    if weights != "imagenet":
        return [f"model.weights={_short(weights)}: expected imagenet or null (for your own weights: init=<path>)"]
    if not isinstance(file, str) or not re.fullmatch(r"[\w-]+-[0-9a-f]{8,64}\.pth", file):
        return [
            f"model.published={_short(file)}: expected the name of torchvision's file, such as resnet18-f37072fd.pth"
        ]
    return []


def _problems_of_groups(groups: object) -> list[str]:
    if not isinstance(groups, dict):
        return [f"optimizer.groups={_short(groups)}: expected a mapping, such as {{biases: {{weight_decay: 0}}}}"]
    problems = []
    for kind, settings in groups.items():
        path = f"optimizer.groups.{kind}"
        if kind not in KINDS:
            problems.append(f"{path}: no kind of parameter; expected {', '.join(KINDS)}{nearest(str(kind), KINDS)}")
        elif not isinstance(settings, dict):
            problems.append(f"{path}={_short(settings)}: expected a mapping with lr or weight_decay")
        else:
            for key, value in settings.items():
                if key not in SETTINGS:
                    problems.append(f"{path}.{key}: expected lr or weight_decay{nearest(str(key), SETTINGS)}")
                elif expected := mismatch(value, SETTINGS[key]):
                    problems.append(f"{path}.{key}={_short(value)}: expected {expected}")
    return problems


def _short(value: object) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or (value if isinstance(value, str) and value else repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _is_allowed(target: str, nested: Nested) -> bool:
    parts = target.split(".")
    if not all(word.isidentifier() and not word.startswith("_") for word in parts):
        return False
    within = target.startswith(nested.within + ".")
    torch_optimizer = nested.within == "dlrun.optim.optimizers" and target.startswith("torch.optim.")
    return within or torch_optimizer or is_allowed(target)


def nested_kind(annotation: object) -> Nested | None:
    """Return the kind of nested config that a parameter with this annotation takes, or None for a plain value."""
    if annotation in get_args(Spec):
        return Nested("dlrun.spec", "class")
    if get_origin(annotation) is Union:  # such as TableReader | None
        return next((kind for option in get_args(annotation) if (kind := nested_kind(option))), None)
    if get_origin(annotation) is Annotated:
        return next((a for a in get_args(annotation) if isinstance(a, Nested)), None)
    return None
