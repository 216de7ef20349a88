"""Rewrite Hydra's errors in this project's form: what happened, what was expected, how to fix it."""

import os
import re
import shlex
from pathlib import Path
from typing import cast

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from dlrun.config.check import SECTIONS, VALUES, is_path, problem_of_target
from dlrun.config.extras import install
from dlrun.config.renamed import renamed
from dlrun.config.source import no_module
from dlrun.config.unreadable import unreadable
from dlrun.config.usage import folders_of, group_names, options
from dlrun.errors import closest, listed, nearest
from dlrun.overrides import pasteable


def explain(error: Exception, arguments: list[str], config_dir: str | None = None) -> str:
    """Return a short message for an error of Hydra, OmegaConf or YAML."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(str(error.missing_cfg_file), list(error.options or ()), config_dir)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}"
        return f"cannot read {where}: {error.problem}\n  expected YAML like that of the other configs"
    if isinstance(error, UnicodeDecodeError | yaml.reader.ReaderError):
        return f"cannot read {_undecodable(config_dir)}: it is not UTF-8 text\n  save it as UTF-8"
    if "Ambiguous value for argument" in text:
        argument = text.split("'")[1]
        return (
            f"{argument}: several values for one run\n"
            f"  expected one value, a sweep (dl-run -m {shlex.quote(argument)}), or a list (key=[a,b])"
        )
    if "Cannot merge DictConfig with ListConfig" in text:
        where = text.split("'")[1] if text.startswith("In '") else "a YAML file"
        return (
            f"{where} has a list where the option that it changes has a mapping\n"
            "  expected the option's keys, such as data: {augment: {flip: true, own: [mynets.augment.brightness]}}"
        )
    if "for integer string conversion" in text:
        argument = max(arguments, key=len)
        return f"{argument[:40]}...: a number of more than 4,300 digits\n  expected a smaller one"
    if within := _within_list(f"{text}: {error.__cause__}", arguments):
        return f"{within}: a list has no keys\n  expected the whole list, such as 'model.hidden=[64,32]'"
    if isinstance(error, RecursionError) or "Recursive interpolation" in text:
        return f"an interpolation refers to itself: {_first_line(error)}"
    for argument in arguments:
        if message := _group_argument(argument, text, config_dir):
            return message
    match = re.search(r"Could not (?:override|append to config|append|delete|delete from config)\W[^']*'([^']+)'", text)
    if match and "already at" not in text and "The value of" not in text:
        return _unknown_key(match[1].split("=")[0], error, arguments, config_dir)
    if error.__cause__ is not None and text.startswith("Error merging override"):
        return f"{text.removeprefix('Error merging override ')}: {_first_line(error.__cause__)}"
    key = getattr(error, "full_key", None)
    if unset := re.search(r"Environment variable '([^']+)' not found", text):
        name = unset[1]
        default = f"${{oc.env:{name},5}}"
        return f"{key}: {name} is not set in the environment\n  expected {name}=... dl-run ..., or a default: {default}"
    return f"{key}: {_first_line(error)}" if key else _first_line(error)


def _within_list(text: str, arguments: list[str]) -> str | None:
    """Return the argument whose key goes on below a list, if that is the error."""
    if not re.search(r"invalid literal for int\(\)|\(str\) is not an int|list index out of range", text):
        return None
    named, words = [a for a in arguments if a in text], set(re.findall(r"'(\w+)'", text))
    return next(iter(named or (a for a in arguments if words & {*a.partition("=")[0].split(".")[1:]})), None)


def _group_argument(argument: str, text: str, config_dir: str | None) -> str | None:
    """Describe the error in an argument that chooses an option, or return None if the error has another cause."""
    group, _, value = argument.lstrip("+~").partition("=")
    expected = listed("  expected one of: ", options(group, config_dir), 19)
    if argument.startswith("="):
        return unreadable(argument)
    twice = f"already at {group!r}" in text or "more than once" in text or "force-add" in text
    if group == "hydra.sweeper.params" or group.startswith("hydra.sweeper.params."):
        return f"{argument}: a config file's key\n  expected the axes of the sweep themselves: dl-run -m seed=0,1"
    if argument.startswith("+") and twice:
        return f"{argument}: {group} is already set\n  expected {argument.lstrip('+')}, without the +"
    is_there = "interpolation" in text or "Could not delete" in text  # other keys refer to it, or its value differs
    if argument.startswith("~") and group in (*SECTIONS, "sweep") and is_there:
        return f"{argument}: a run needs one option of {group!r}\n{expected}"
    if group in group_names(config_dir) and (value == "null" or value.startswith("{")) and "Config group" in text:
        return f"{argument}: not an option of {group}\n{expected}"
    if "@" in group and group.split("@")[0] in SECTIONS:
        return f"{argument}: expected {group.split('@')[0]}={value or '...'}, without a package"
    return None


def _first_line(error: BaseException) -> str:
    """Return the error's text without hints about Hydra's and OmegaConf's own API."""
    text = str(error).split("\n    full_key")[0].split("\n\tfull_key")[0]
    return "\n  ".join(line.strip() for line in text.strip().splitlines()) or type(error).__name__


def _undecodable(config_dir: str | None) -> Path:
    """Find the config that is not UTF-8, which Hydra's error does not name."""
    for path in (path for base in folders_of(config_dir) for path in base.rglob("*.yaml")):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return path
    return folders_of(config_dir)[-1]


def _missing_option(name: str, known: list[str], config_dir: str | None) -> str:
    if name.startswith("data/") and (table := _as_table(name.removeprefix("data/"))):
        return table
    group, _, option = name.rpartition("/")
    if not group:
        return f"there is no config {name!r}\n  expected a file {name}.yaml in {folders_of(config_dir)[-1]}"
    known = known or options(group, config_dir)
    if is_path(group, option) and option.partition(".")[0] not in known and not os.path.exists(option):
        return f"{group}={option}: {no_module(option.rpartition('.')[0])}"
    expected = "\n" + listed("  expected one of: ", known, 19) if known else ""
    if group == "hydra/launcher" and option.startswith("submitit"):
        expected = f"\n  install it: {install('submitit')}"
    return f"{group}={option}: no such option{nearest(option, known)}{expected}"


def _as_table(word: str) -> str:
    """Say how a file of one's own is named; "" unless the word is such a file, or its form."""
    form = word.lower().removesuffix(".gz").rpartition(".")[2]
    kind = "arrays" if form in ("npz", "npy") else "table" if form in ("csv", "tsv", "parquet") else ""
    if not kind:
        return ""
    file = word if form != word.lower() else f"FILE.{form}"
    key = "data.x" if form == "npy" else "data.file"
    more = f" data.y=FILE.{form}" if form == "npy" else " data.target=COLUMN" if kind == "table" else ""
    return f"data={word}: no such option\n  expected data={kind} {pasteable(key, file)}{more}"


def _unknown_key(key: str, error: Exception, arguments: list[str], config_dir: str | None) -> str:
    argument = next((a for a in arguments if a.lstrip("+~").split("=")[0] == key), key)
    parent, _, last = key.rpartition(".")
    config = _config_at(error)
    target = (config.get(parent) or {}).get("_target_") if parent in SECTIONS else None
    if isinstance(target, str) and (problem := problem_of_target(target, SECTIONS[parent], parent)):
        return problem  # so its keys are not known
    keys = _keys_of(config)
    if not keys and parent:
        return f"{argument}: there is no key {key!r}\n  dl-run --cfg job shows all keys"
    keys = keys or [*group_names(config_dir), *sorted(VALUES)]
    section, _, rest = key.partition(".")
    for above, below in ((parent, last), (section, rest)):  # data.source.path is data.root now
        if new := renamed(above, below, [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == above]):
            return f"{argument}: this key was renamed\n  expected {argument.replace(key, f'{above}.{new}', 1)}"
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    while parent and not siblings:  # below a value, or in a section that is not there
        parent, _, last = parent.rpartition(".")
        siblings = [k for k in keys if k.rpartition(".")[0] == parent] if parent else []
        if f"{parent}.{last}" in siblings:
            names = [k.rpartition(".")[2] for k in siblings]
            return f"{argument}: {parent}.{last} has no keys\n" + listed(f"  {parent} has: ", names, 4)
    by_name = {k.rpartition(".")[2]: k for k in reversed(keys) if not k.startswith("hydra")}
    near: str | None
    if last in by_name:  # the same name in another section
        near = by_name[last]
    elif near := closest(last, [k.rpartition(".")[2] for k in siblings], 0.6):
        near = f"{parent}.{near}" if parent else near
    elif siblings:  # a similar name in another section
        near = by_name.get(closest(last, list(by_name), 0.75) or "")
    else:
        near = closest(key, keys, 0.7)
    if near == key:  # ~key=value with a value that the key does not have
        return f"{argument}: {key} has another value\n  expected ~{key}, or its value"
    hint = f"; did you mean {near!r}?" if near else ""
    if siblings and parent:
        names = [k.rpartition(".")[2] for k in siblings]
        return f"{argument}: {parent} has no {last!r}{hint}\n" + listed(f"  {parent} has: ", names, 4)
    top = [k for k in keys if "." not in k and k != "hydra"]
    return f"{argument}: there is no key {key!r}{hint}\n" + listed("  expected one of: ", sorted(top), 4)


def _config_at(error: Exception) -> dict:
    """Return the config in which the error arose. Empty if it was not composed yet."""
    node = getattr(error.__cause__, "parent_node", None)
    return {} if node is None else cast(dict, OmegaConf.to_container(node._get_root(), resolve=False))


def _keys_of(config: dict) -> list[str]:
    """List all dotted keys."""
    keys: list[str] = []

    def walk(inner: object, path: str) -> None:
        if isinstance(inner, dict):
            for name, value in inner.items():
                if name != "_target_":
                    keys.append(f"{path}{name}")
                    walk(value, f"{path}{name}.")

    walk(config, "")
    return keys
