"""Load a classifier that another run trained on the same data; its features measure generated samples."""

import os
from pathlib import Path

import torch
from torch import nn

from dlrun.config.build import build
from dlrun.config.saved import own_config
from dlrun.errors import CheckpointError, UserError
from dlrun.output.folders import read_summary
from dlrun.train.weights import load_weights

LOCATION = ("data_dir", "download", "mirrors")  # keys of a source that locate the data and do not change it
# keys that decide images and splits
FOLDER = ("root", "layout", "label_file", "label_pattern", "resize", "fit", "split", "stratify")


def load_classifier(run: str, config: dict, device: torch.device) -> tuple[nn.Module, list[float], list[float]]:
    """Return a run's network with its best weights, and the mean and std by which it normalises pixels in [0, 1].

    run: the folder of the classifier's run. config: of the run that generates samples. Raises UserError unless the
    run is finished and learned classes from the same data.
    """
    folder = Path(os.path.expanduser(run))
    asked, spec = f"task.quality={run}", build(config["data"]["spec"])
    expected = f"expected the folder of a finished classifier's run on the same data ({spec})"
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise UserError(f"{asked}: there is no run in that folder (no .hydra/config.yaml)\n  {expected}")
    theirs, names = own_config(folder)
    their_spec = theirs["data"].get("spec") and build(theirs["data"]["spec"])
    if not theirs["task"]["_target_"].endswith(".Supervised") or not getattr(their_spec, "classes", None):
        hint = "\n  set the number of classes in both: data.spec.classes=..." if hasattr(their_spec, "classes") else ""
        raise UserError(
            f"{asked}: that run trained task={names.get('task')} on {their_spec}, no classes\n  {expected}{hint}"
        )
    if their_spec != spec or _source(theirs) != _source(config):
        raise UserError(f"{asked}: that run learned from data={names.get('data')}, {their_spec}\n  {expected}")
    if read_summary(folder).get("status") != "finished":
        raise UserError(f"{asked}: that run has not finished\n  {expected}")
    net: nn.Module = build(theirs["model"])(spec)
    try:
        load_weights(net, run, None, asked)
    except CheckpointError as error:
        raise UserError(f"{asked}: {error}\n  {expected}") from None
    return net.eval().requires_grad_(False).to(device), theirs["data"]["mean"], theirs["data"]["std"]


def _source(config: dict) -> dict:
    """The keys that decide the content of the data, without those that locate it."""
    data = config["data"]
    source = data.get("source") or {key: data.get(key) for key in FOLDER}
    return {key: value for key, value in source.items() if key not in LOCATION}
