"""A run's own config, read back from its folder. No torch here."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dlrun.build import check
from dlrun.errors import UserError
from dlrun.explain import explain
from dlrun.folders import read_summary


def read_config(folder: Path) -> tuple[DictConfig, dict[str, str]]:
    """The config and the groups' choices that it was composed from. Raises UserError where they are damaged."""
    try:
        saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
        choices = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.runtime.choices
        if isinstance(saved, DictConfig) and isinstance(choices, DictConfig):
            return saved, dict(choices)
        why = "it is not the config of a run"
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, AttributeError) as error:
        why = str(error).splitlines()[0]
    raise UserError(
        f"{folder}: cannot read the run's config in {folder / '.hydra'}: {why}\n"
        "  expected config.yaml and hydra.yaml as dl-run wrote them; its weights can be had by init=..."
    )


def plain(config: DictConfig) -> dict:
    """Plain dicts and lists, interpolations resolved. Raises UserError where that cannot be done."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(explain(error, sys.argv[1:])) from None


def require_finished(folder: Path) -> dict:
    """The summary of a run. Raises UserError where it did not come to its end."""
    summary = read_summary(folder)
    status = summary.get("status")
    if status == "finished":
        return summary
    if status is None:
        raise UserError(
            f"{folder}: the run's summary.json is missing or damaged\n  expected a run that came to its end"
        )
    way = {"diverged": "its log says why", "failed": "its log says why"}.get(status, f"dl-run resume={folder}")
    raise UserError(f"{folder}: the run is not finished, its status is {status!r}\n  expected a finished one: {way}")


def own_config(folder: Path, changes: dict[str, object] | None = None) -> tuple[dict, dict[str, str]]:
    """A run's own config, plain and checked, without what only starts its weights; and the groups' choices."""
    saved, names = read_config(folder)
    for key, value in (changes or {}).items():
        OmegaConf.update(saved, key, value)
    config = plain(saved)
    config["init"] = None
    model = config.get("model") or {}
    if model.get("weights"):
        model["weights"] = None
    if isinstance(model.get("embedding"), dict) and model["embedding"].get("file"):
        model["embedding"] |= {"file": None, "train": True}  # the file may be gone, and its vectors are in the weights
    task = config.get("task") or {}
    if task.get("quality") and not Path(task["quality"]).is_dir():
        task["quality"] = None  # a classifier that only measured, and is gone
    try:
        check(config, names)
    except UserError as error:
        raise UserError(f"{folder}: its config is not one of this version of dl-run: {error}") from None
    return config, names
