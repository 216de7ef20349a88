"""A run's own config, read back from its folder. No torch here."""

import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.config.check import check
from dlrun.config.explain import explain
from dlrun.config.pairing import CONFIGS
from dlrun.config.signatures import signature
from dlrun.errors import UserError, check_state
from dlrun.output.folders import read_summary
from dlrun.overrides import key_of, pasteable
from dlrun.paths import pinned, read_whole
from dlrun.types import DataPath

PATHS = ("data_dir", "output_dir", "run_dir", "resume", "init")
SUMMARY = {"best": dict, "test": dict, "epochs": int, "steps": int, "seconds": int | float}  # where it has them
REFERENCE = re.compile(r"(?<!\\)\$\{([^${}:]+)\}")
MOST = 100_000  # values that a config may become, references and all
LOADER, DEPTH = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 50
BEST = {"metric": str, "value": int | float | None, "epoch": int}


def read_config(folder: Path) -> tuple[DictConfig, dict[str, str]]:
    """The config and the groups' choices that it was composed from. Raises UserError where they are damaged."""
    try:
        saved, hydra = (OmegaConf.create(read_yaml(folder / ".hydra" / f"{name}.yaml")) for name in ("config", "hydra"))
        choices = hydra.hydra.runtime.choices
        if isinstance(saved, DictConfig) and isinstance(choices, DictConfig):
            _refuse_calls(folder, saved)
            _bound(folder, OmegaConf.to_container(saved, resolve=False))
            return saved, dict(choices)
        why = "it is not the config of a run"
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, AttributeError) as error:
        why = str(error).splitlines()[0]
    raise UserError(
        f"{folder}: cannot read the run's config in {folder / '.hydra'}: {why}\n"
        "  expected config.yaml and hydra.yaml as dl-run wrote them; its weights can be had by init=..."
    )


def anew(folder: Path, change: str) -> str:
    """The arguments of a new run like that in `folder`, with a change, for a shell; from its weights, if they fit."""
    path, changed = folder / ".hydra" / "overrides.yaml", key_of(change)
    try:
        given = [str(override) for override in OmegaConf.to_container(OmegaConf.create(read_yaml(path)), resolve=False)]
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        given = [f"{group}={name}" for group, name in read_config(folder)[1].items() if group in ("model", "data")]
    own = ("init", "resume", "run_dir", "sweep", "hydra", changed)  # a group's keys go with the group
    kept = [o for o in given if key_of(o) not in own and not key_of(o).startswith(tuple(f"{key}." for key in own))]
    init = [] if changed.split(".")[0] in ("init", "model") else [pasteable("init", folder)]
    return " ".join([*(_from_anywhere(folder, o) for o in kept), *init, shlex.quote(change)])


def _from_anywhere(folder: Path, override: str) -> str:
    """An override of a run, for a shell; a path that was relative as the run's config has it, which is absolute."""
    key = key_of(override)
    try:
        value = OmegaConf.to_container(read_config(folder)[0], resolve=False)
        for part in key.split("."):
            value = value[part]
    except (UserError, KeyError, TypeError):
        return shlex.quote(override)
    is_pinned = isinstance(value, str) and os.path.isabs(value) and key.split(".")[0] in ("data", "data_dir")
    return pasteable(key, value) if is_pinned else shlex.quote(override)


def read_yaml(path: Path) -> str:
    """The text of a YAML file in a run's folder. Raises OSError, ValueError or YAMLError where dl-run did not write it:
    with aliases, and lists in lists, a few bytes fill the memory.
    """
    text, depth = read_whole(path).decode(), 0
    for event in yaml.parse(text, LOADER):
        where = f"{path.name}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{where}: *{event.anchor} repeats another value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"{where}: more than {DEPTH} lists or mappings in each other")
    return text


def settled(config: DictConfig) -> DictConfig:
    """The config with what ${oc.env:...} and other calls gave in their place, as if it had been written there.

    A data_dir as dl-run finds it by default stays a call: each machine has its own. So do references to other keys.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    kept = _settled(raw, resolved)
    kept |= {key: resolved[key] for key in PATHS if _calls(raw.get(key))}  # a folder may be named 5
    if raw.get("data_dir") == _default_data_dir():
        kept["data_dir"] = raw["data_dir"]
    return OmegaConf.create(kept)


def portable(config: DictConfig) -> DictConfig:
    """A checked config as a run keeps it: settled, and its data's paths mean the same from any working folder."""
    kept = OmegaConf.to_container(settled(config), resolve=False)
    resolved = OmegaConf.to_container(config, resolve=True)
    data_dir = Path(os.path.abspath(os.path.expanduser(resolved["data_dir"])))
    if kept["data_dir"] != _default_data_dir():
        kept["data_dir"] = str(data_dir)
    _pin_paths(kept["data"], resolved["data"], data_dir)
    return OmegaConf.create(kept)


def _pin_paths(kept: dict, resolved: dict, data_dir: Path) -> None:
    """Change the paths of a data section, in place, to those that they mean here."""
    keys = signature(resolved["_target_"]).keys
    for key, value in resolved.items():
        if isinstance(value, dict) and "_target_" in value:
            _pin_paths(kept[key], value, data_dir)
        elif keys.get(key) == DataPath:
            kept[key] = pinned(value, data_dir)


def _settled(raw: object, resolved: object) -> object:
    if isinstance(raw, dict):
        return {key: _settled(value, resolved[key]) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_settled(*pair) for pair in zip(raw, resolved, strict=True)]
    return _read(resolved) if _calls(raw) else raw


def _read(value: object) -> object:
    """A text from the environment as the command line reads it: '2' is a number, '[64,32]' a list, 'abc' a text."""
    if not isinstance(value, str) or "${" in value:
        return value
    try:
        found = OmegaConf.create({"text": value, "value": "${oc.decode:${text}}"})
        return OmegaConf.to_container(found, resolve=True)["value"]
    except OmegaConfBaseException:  # not in that grammar: a text
        return value


def _calls(value: object) -> bool:
    """Whether it has OmegaConf call something: ${name:...}, whatever makes the name."""
    return isinstance(value, str) and ":" in value.partition("${")[2]


@cache
def _default_data_dir() -> str:
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / "config.yaml"), resolve=False)["data_dir"]


def _refuse_calls(folder: Path, saved: DictConfig) -> None:
    """A folder from somebody else is not to read this machine's environment: what it says may go to a mirror."""
    leaves = [("", OmegaConf.to_container(saved, resolve=False))]
    while leaves:
        key, value = leaves.pop()
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        leaves += [(f"{key}.{name}".lstrip("."), each) for name, each in pairs]
        rest = REFERENCE.sub("", value) if isinstance(value, str) else ""
        asks = _calls(value) or re.search(r"(?<!\\)\$\{", rest)  # a name that another reference makes
        if asks and (key, value) != ("data_dir", _default_data_dir()):
            raise UserError(
                f"{folder}: {key}={value} in {folder / '.hydra' / 'config.yaml'} asks for more than another key\n"
                "  expected values, as dl-run writes them: write its value there, if you know where it is from"
            )


def _bound(folder: Path, config: dict) -> None:
    """Raise UserError where references to references would make a few bytes fill the memory."""
    sizes: dict[tuple, int] = {}

    def size(path: tuple[str, ...]) -> int:
        """How many values the one at `path` becomes."""
        if path in sizes:  # one that refers to itself is refused where it is resolved
            return sizes[path]
        sizes[path] = 0
        value = _at(config, path)
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
            found = sum(size((*path, str(key))) for key in keys)
        else:
            found = 1 + sum(size(_target(path, each)) for each in REFERENCE.findall(str(value)))
        if found > MOST:
            raise UserError(
                f"{folder}: {'.'.join(path)} in {folder / '.hydra' / 'config.yaml'} becomes more than {MOST:,} values\n"
                "  expected a config as dl-run writes it"
            )
        sizes[path] = found
        return found

    size(())


def _target(path: tuple[str, ...], reference: str) -> tuple[str, ...]:
    """The absolute path of what a value at `path` refers to: `a.b[0]`, or `..b` from where it stands."""
    name = reference.strip().lstrip(".")
    dots = len(reference.strip()) - len(name)
    base = path[: len(path) - dots] if dots else ()
    return (*base, *(part for part in re.split(r"[.\[\]]+", name) if part))


def _at(config: object, path: tuple[str, ...]) -> object:
    """None where there is nothing."""
    for key in path:
        if isinstance(config, dict):
            config = next((value for name, value in config.items() if str(name) == key), None)
        elif isinstance(config, list) and key.isdecimal() and int(key) < len(config):
            config = config[int(key)]
        else:
            return None
    return config


def plain(config: DictConfig) -> dict:
    """Plain dicts and lists, interpolations resolved. Raises UserError where that cannot be done."""
    try:
        return OmegaConf.to_container(settled(config), resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(explain(error, sys.argv[1:])) from None


def require_finished(folder: Path) -> dict:
    """The summary of a run. Raises UserError where it did not come to its end, or the summary is damaged."""
    summary = read_summary(folder)
    status = summary.get("status")
    if status == "finished":
        return _checked(folder, summary)
    if not isinstance(status, str):
        raise UserError(
            f"{folder}: the run's summary.json is missing or damaged\n  expected a run that came to its end"
        )
    way = "its log says why" if status in ("diverged", "failed") else f"dl-run {pasteable('resume', folder)}"
    raise UserError(f"{folder}: the run is not finished, its status is {status!r}\n  expected a finished one: {way}")


def _checked(folder: Path, summary: dict) -> dict:
    found = {name: summary[name] for name in SUMMARY if name in summary}
    try:
        check_state(found, {name: SUMMARY[name] for name in found})
        if "best" in found:
            check_state(found["best"], BEST)
    except ValueError as error:
        raise UserError(
            f"{folder}: the run's summary.json is damaged: {error}\n  expected the file as dl-run wrote it"
        ) from None
    return summary


def own_config(folder: Path, changes: dict[str, object] | None = None) -> tuple[dict, dict[str, str]]:
    """A run's own config, plain and checked, without what only starts its weights; and the groups' choices."""
    saved, names = read_config(folder)
    for key, value in (changes or {}).items():
        OmegaConf.update(saved, key, value)
    config = plain(saved)
    config["init"] = None
    model, task = (found if isinstance(found := config.get(name), dict) else {} for name in ("model", "task"))
    if model.get("weights"):
        model["weights"] = None
    if isinstance(model.get("embedding"), dict) and model["embedding"].get("file"):
        model["embedding"] |= {"file": None, "train": True}  # the file may be gone, and its vectors are in the weights
    if isinstance(task.get("quality"), str) and not os.path.isdir(task["quality"]):
        task["quality"] = None  # a classifier that only measured, and is gone
    try:
        check(config, names)
    except UserError as error:
        raise UserError(f"{folder}: its config is not one of this version of dl-run: {error}") from None
    return config, names
