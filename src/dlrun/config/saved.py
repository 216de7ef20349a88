"""Save a run's config and read it back from the run's folder. No torch here."""

import os
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.config.check import check
from dlrun.config.explain import explain
from dlrun.config.missing_code import require_code, without_training
from dlrun.config.older import update_config
from dlrun.config.pairing import CONFIGS
from dlrun.config.signatures import signature
from dlrun.config.untrusted import is_call, read_yaml, refuse_calls, refuse_growth
from dlrun.errors import IN_MEMORY, DataError, UserError, check_state, first_line
from dlrun.output.folders import read_summary
from dlrun.overrides import key_of, pasteable
from dlrun.paths import pinned
from dlrun.types import DataPath

PATHS = ("data_dir", "output_dir", "run_dir", "resume", "init")
SUMMARY = {"best": dict, "test": dict, "epochs": int, "steps": int, "seconds": int | float}  # optional keys
BEST = {"metric": str, "value": int | float | None, "epoch": int}


def read_config(folder: Path) -> tuple[DictConfig, dict[str, str]]:
    """Return a run's config and the chosen option of each group. Raises UserError if the files are damaged."""
    try:
        saved, hydra = (OmegaConf.create(read_yaml(folder / ".hydra" / f"{name}.yaml")) for name in ("config", "hydra"))
        choices = hydra.hydra.runtime.choices
        if isinstance(saved, DictConfig) and isinstance(choices, DictConfig):
            raw = container(saved, resolve=False)
            refuse_calls(folder, raw, _default_data_dir())
            refuse_growth(folder, raw)
            update_config(saved)
            return saved, dict(choices)
        why = "it is not the config of a run"
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, AttributeError) as error:
        why = first_line(error)
    raise UserError(
        f"{folder}: cannot read the run's config in {folder / '.hydra'}: {why}\n"
        "  expected config.yaml and hydra.yaml as dl-run wrote them; init=... starts a new run from its weights"
    )


def new_run_arguments(folder: Path, change: str) -> str:
    """Return shell arguments for a new run like the one in `folder` with one change, from its weights if they fit."""
    path, changed = folder / ".hydra" / "overrides.yaml", key_of(change)
    try:
        lines = OmegaConf.to_container(OmegaConf.create(read_yaml(path)), resolve=False)
        overrides = [str(each) for each in cast("list[object]", lines)]
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        overrides = [f"{group}={name}" for group, name in read_config(folder)[1].items() if group in ("model", "data")]
    dropped = ("init", "resume", "run_dir", "sweep", "hydra", changed)  # with all their keys
    below = tuple(f"{key}." for key in dropped)
    overrides = [o for o in overrides if key_of(o) not in dropped and not key_of(o).startswith(below)]
    init = [] if changed.split(".")[0] in ("init", "model") else [pasteable("init", folder)]
    return " ".join([*(_from_anywhere(folder, o) for o in overrides), *init, shlex.quote(change)])


def _from_anywhere(folder: Path, override: str) -> str:
    """Quote an override of a run for a shell; a relative path becomes the absolute one of the run's config."""
    key = key_of(override)
    try:
        value: Any = container(read_config(folder)[0], resolve=False)
        for part in key.split("."):
            value = value[part]
    except (UserError, KeyError, TypeError):
        return shlex.quote(override)
    is_pinned = isinstance(value, str) and os.path.isabs(value) and key.split(".")[0] in ("data", "data_dir")
    return pasteable(key, value) if is_pinned else shlex.quote(override)


def without_calls(config: DictConfig) -> DictConfig:
    """Replace ${oc.env:...} and other resolver calls in a config by their results.

    The default data_dir stays a call, since each machine has its own. References to other keys stay, too.
    """
    raw = container(config, resolve=False)
    resolved = container(config, resolve=True, throw_on_missing=True)
    saved = _without_calls(raw, resolved)
    saved |= {key: resolved[key] for key in PATHS if is_call(raw.get(key))}  # stay text: a folder may be named 5
    if raw.get("data_dir") == _default_data_dir():
        saved["data_dir"] = raw["data_dir"]
    return OmegaConf.create(saved)


def portable(config: DictConfig) -> DictConfig:
    """Return a checked config as a run saves it: nothing is left to call, data paths hold in any folder."""
    saved = container(without_calls(config), resolve=False)
    resolved = container(config, resolve=True)
    data_dir = Path(os.path.abspath(os.path.expanduser(resolved["data_dir"])))
    if saved["data_dir"] != _default_data_dir():
        saved["data_dir"] = str(data_dir)
    _pin_paths(saved["data"], resolved["data"], data_dir)
    return OmegaConf.create(saved)


def is_location_key(config: dict, key: str) -> bool:
    """Whether a key such as data.root names the location of a run's data. config: the run's, as plain dicts."""
    *parents, name = key.split(".")
    node: object = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if parents[:1] != ["data"] or not isinstance(node, dict) or name not in node:
        return False
    if not isinstance(node.get("_target_"), str):
        return False
    return signature(node["_target_"]).keys.get(name) in (DataPath, DataPath | None)


def where_moved(error: DataError, folder: Path, config: dict) -> DataError:
    """Return the error of a run's data that cannot be read, with the command that names its new place."""
    if str(error) == IN_MEMORY:
        return error
    lines = [line for line in str(error).splitlines() if "=..." not in line]  # without those about keys of new runs
    prefix = str(error).partition("=")[0]
    key = prefix if is_location_key(config, prefix) else "data_dir"
    elsewhere = f"dl-run {pasteable('resume', folder)} {key}=<{'place' if key == prefix else 'folder'}>"
    return DataError("\n".join([*lines, f"  put it there, or name its place: {elsewhere}"]))


def _pin_paths(saved: dict, resolved: dict, data_dir: Path) -> None:
    """Replace the paths of a data section, in place, by absolute ones or ones relative to data_dir."""
    keys = signature(resolved["_target_"]).keys
    for key, value in resolved.items():
        if isinstance(value, dict) and "_target_" in value:
            _pin_paths(saved[key], value, data_dir)
        elif isinstance(value, str) and keys.get(key) in (DataPath, DataPath | None):
            saved[key] = pinned(value, data_dir)


def _without_calls(raw: Any, resolved: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _without_calls(value, resolved[key]) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_without_calls(*pair) for pair in zip(raw, resolved, strict=True)]
    return _read(resolved) if is_call(raw) else raw


def _read(value: object) -> object:
    """Parse text from the environment like the command line: '2' is a number, '[64,32]' a list, 'abc' text."""
    if not isinstance(value, str) or "${" in value:
        return value
    try:
        parsed = OmegaConf.create({"text": value, "value": "${oc.decode:${text}}"})
        return container(parsed, resolve=True)["value"]
    except OmegaConfBaseException:  # not in that grammar: plain text
        return value


def container(config: DictConfig, *, resolve: bool, throw_on_missing: bool = False) -> dict[str, Any]:
    """Return a config as plain dicts and lists."""
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=resolve, throw_on_missing=throw_on_missing))


@cache
def _default_data_dir() -> str:
    return container(cast(DictConfig, OmegaConf.load(CONFIGS / "config.yaml")), resolve=False)["data_dir"]


def plain(config: DictConfig, arguments: Sequence[str] = ()) -> dict:
    """Return plain dicts and lists with interpolations resolved. Raises UserError if one cannot be resolved.

    arguments: the words that the config was composed from, for the error.
    """
    try:
        return container(without_calls(config), resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(explain(error, list(arguments))) from None


def require_finished(folder: Path) -> dict:
    """Return the summary of a finished run. Raises UserError if the run is unfinished or its summary damaged."""
    summary = read_summary(folder)
    status = summary.get("status")
    if status == "finished":
        return _checked(folder, summary)
    if not isinstance(status, str):
        raise UserError(f"{folder}: the run's summary.json is missing or damaged\n  expected a finished run")
    hint = "its run.log has the cause" if status in ("diverged", "failed") else f"dl-run {pasteable('resume', folder)}"
    raise UserError(f"{folder}: the run is not finished, its status is {status!r}\n  expected a finished run: {hint}")


def _checked(folder: Path, summary: dict) -> dict:
    known = {name: summary[name] for name in SUMMARY if name in summary}
    try:
        check_state(known, {name: SUMMARY[name] for name in known})
        if "best" in known:
            check_state(known["best"], BEST)
    except ValueError as error:
        raise UserError(
            f"{folder}: the run's summary.json is damaged: {error}\n  expected the file as dl-run wrote it"
        ) from None
    return summary


def own_config(
    folder: Path, changes: dict[str, object] | None = None, evaluates: bool = False
) -> tuple[dict, dict[str, str]]:
    """Return a run's config, plain and checked, and the chosen option of each group.

    Keys that only initialise weights (init, weights, embedding file) are cleared: the weights come from the checkpoint.
    Code that only trained the run and is gone is replaced. evaluates: whether its loss and metrics are needed.
    """
    saved, names = read_config(folder)
    for key, value in (changes or {}).items():
        OmegaConf.update(saved, key, value)
    config = plain(saved)
    config["init"] = None
    model, task = (node if isinstance(node := config.get(name), dict) else {} for name in ("model", "task"))
    if model.get("weights"):
        model["weights"] = None
    if isinstance(model.get("embedding"), dict) and model["embedding"].get("file"):
        model["embedding"] |= {"file": None, "train": True}  # the weights hold its vectors
    if isinstance(task.get("quality"), str) and not os.path.isdir(task["quality"]):
        task["quality"] = None  # the classifier is gone, and only measured quality
    without_training(config, evaluates)
    require_code(config, str(folder))
    try:
        check(config, names)
    except UserError as error:
        raise UserError(f"{folder}: its config is not valid in this version of dl-run: {error}") from None
    return config, names
