"""Turn the config of a run that an older version started into one of this version."""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from dlrun.config.renamed import RENAMED, renamed
from dlrun.config.signatures import signature

# modules that moved: configs of runs from before are read with the new path
MOVED = {
    "dlrun.runs.trackers": "dlrun.tracking.trackers",
    "dlrun.data.arrays": "dlrun.data.arrays.arrays",
    "dlrun.data.augment": "dlrun.data.images.augment",
    "dlrun.data.envs": "dlrun.data.envs.envs",
    "dlrun.data.image_folder": "dlrun.data.images.folder",
    "dlrun.data.images": "dlrun.data.images.images",
    "dlrun.data.masks": "dlrun.data.images.masks",
    "dlrun.data.stream": "dlrun.data.stream.stream",
    "dlrun.data.tables": "dlrun.data.table.tables",
    "dlrun.data.text": "dlrun.data.texts.texts",
}


def moved(target: str) -> str:
    """Return the present path of a `_target_`."""
    module, _, name = target.rpartition(".")
    return f"{MOVED.get(module, module)}.{name}"


# readers that are part of their data set now: data.source._target_ -> data._target_, and the keys with a new name
JOINED = {
    "dlrun.data.readers.masks.mask_folder": ("dlrun.data.images.mask_folder.MaskFolder", {"folder": "root"}),
    "dlrun.data.readers.texts.text_folder": ("dlrun.data.texts.folder.TextFolder", {"path": "root"}),
}

PLAIN_HEAD: dict[str, object] = {"pool": "mean", "head": [], "head_dropout": 0.5}
# keys that configs of older runs lack, with the value that keeps their results
ADDED: dict[str, dict[str, object]] = {
    "dlrun.data.table.table_file.TableFile": {"positive": None},
    "dlrun.data.envs.envs.Envs": {"frame_stack": 1, "pixels": None},
    "dlrun.data.images.folder.ImageFolder": {"label_pattern": None},
    "dlrun.data.texts.texts.Texts": {"stratify": False},
    "dlrun.data.texts.folder.TextFolder": {"stratify": False},
    "dlrun.models.densenet.densenet": PLAIN_HEAD,
    "dlrun.models.policy.policy": {"convolutions": []},
    "dlrun.models.policy.q_net": {"convolutions": []},
    "dlrun.models.resnet.resnet": PLAIN_HEAD,
    "dlrun.models.vgg.vgg_imagenet": {"pool": "grid"},
    "dlrun.tracking.trackers.Trackio": {"artifacts": False, "wait_seconds": 2},
    "dlrun.tracking.trackers.Wandb": {"artifacts": False, "wait_seconds": 2},
    "dlrun.tracking.trackers.Mlflow": {"artifacts": False, "wait_seconds": 2},
}


def update_config(saved: DictConfig) -> None:
    """Give a run's config the present modules and keys, with values that keep its results."""
    raw = _plain(saved)
    _follow_moves(saved, raw)
    _join_source(saved, raw)
    _rename_keys(saved)
    _add_keys(saved)
    _empty_unread(saved)


def _plain(saved: DictConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(saved, resolve=False))


def _follow_moves(saved: DictConfig, raw: dict[str, Any]) -> None:
    """Replace the `_target_`s of trackers whose module has moved since the run was started."""
    trackers = raw.get("tracker")
    for name, node in trackers.items() if isinstance(trackers, dict) else ():
        target = node.get("_target_") if isinstance(node, dict) else None
        if isinstance(target, str) and moved(target) != target:
            saved["tracker"][name]["_target_"] = moved(target)


def _join_source(saved: DictConfig, raw: dict[str, Any]) -> None:
    """Turn the data of a run whose reader was configured apart, in data.source, into that of the present class."""
    data = raw.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    target, names = JOINED.get(str(source.get("_target_")), ("", {})) if isinstance(source, dict) else ("", {})
    if not target or not isinstance(data, dict) or not isinstance(source, dict):
        return
    own = {names.get(key, key): value for key, value in source.items()}
    kept = {key: value for key, value in data.items() if key != "source"}
    added = {key: value for key, value in own.items() if key in signature(target).keys and key not in kept}
    saved["data"] = {**kept, **added, "_target_": target}


def _rename_keys(saved: DictConfig) -> None:
    """Give the keys of a section that were renamed since the run was started their new names."""
    raw = _plain(saved)
    for section, names in RENAMED.items():
        node = raw.get(section)
        old = [key for key in node if key in names] if isinstance(node, dict) else []
        if not old or not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
            continue
        keys = signature(node["_target_"]).keys
        new = {key: renamed(section, key, keys) for key in old if key not in keys}
        if any(new.values()):
            saved[section] = {new.get(key) or key: value for key, value in node.items()}


def _add_keys(saved: DictConfig) -> None:
    """Add the keys of data, model and trackers that they did not have when the run was started."""
    raw = _plain(saved)
    data, trackers = raw.get("data"), raw.get("tracker")
    nodes = {"data": data, "model": raw.get("model")}
    nodes |= {f"tracker.{name}": node for name, node in (trackers if isinstance(trackers, dict) else {}).items()}
    for path, node in nodes.items():
        if not isinstance(node, dict):
            continue
        for key, value in ADDED.get(moved(str(node.get("_target_"))), {}).items():
            if key not in node:
                OmegaConf.update(saved, f"{path}.{key}", value, force_add=True)


def _empty_unread(saved: DictConfig) -> None:
    """Empty the keys that name files which the run did not read, or only if they were there: they are demanded now."""
    data = _plain(saved).get("data")
    if not isinstance(data, dict):
        return
    name, unread = moved(str(data.get("_target_"))).rpartition(".")[2], dict[str, object]()
    if name == "TableFile" and data.get("train") is None:
        unread = {key: data.get(key) for key in ("val", "test")}
    if name == "ImageFolder" and data.get("write_csv") is False:
        has_list = data.get("label_file") != "images.csv" and data.get("layout") in ("auto", "csv")
        unread = {} if has_list else {"label_file": data.get("label_file")}
    for key, value in unread.items():
        if value is not None:
            saved["data"][key] = None
