"""A network that another run trained on the same data: a classifier by whose features samples are measured."""

import os
from pathlib import Path

import torch
from torch import nn

from dlrun.config.build import build
from dlrun.config.saved import own_config
from dlrun.errors import CheckpointError, UserError
from dlrun.output.folders import read_summary
from dlrun.train.weights import load_weights

ELSEWHERE = ("data_dir", "download", "mirrors")  # keys of a source that say where it lies, not what it is
FOLDER = ("root", "layout", "csv", "resize", "fit", "split", "stratify")  # what decides a folder's pictures and parts


def load_classifier(run: str, config: dict, device: torch.device) -> tuple[nn.Module, list[float], list[float]]:
    """The network of a run, with its best weights, and the mean and std of pixels in [0, 1] that it takes.

    config: of the run that asks. Raises UserError unless the other learned classes from the same data.
    """
    folder = Path(os.path.expanduser(run))
    asked, spec = f"task.quality={run}", build(config["data"]["spec"])
    wanted = f"expected the folder of a classifier's run on the same data, which gives {spec}"
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise UserError(f"{asked}: there is no run in that folder (no .hydra/config.yaml)\n  {wanted}")
    theirs, names = own_config(folder)
    given = theirs["data"].get("spec") and build(theirs["data"]["spec"])
    if not theirs["task"]["_target_"].endswith(".Supervised") or not getattr(given, "classes", None):
        hint = "\n  say how many classes there are, in both: data.spec.classes=..." if hasattr(given, "classes") else ""
        raise UserError(f"{asked}: that run trained task={names.get('task')} on {given}, no classes\n  {wanted}{hint}")
    if given != spec or _source(theirs) != _source(config):
        raise UserError(f"{asked}: that run learned from data={names.get('data')}, {given}\n  {wanted}")
    if read_summary(folder).get("status") != "finished":
        raise UserError(f"{asked}: that run has not finished\n  {wanted} that came to its end")
    net = build(theirs["model"])(spec)
    try:
        load_weights(net, run, None, asked)
    except CheckpointError as error:
        raise UserError(f"{asked}: {error}\n  {wanted} that came to its end") from None
    return net.eval().requires_grad_(False).to(device), theirs["data"]["mean"], theirs["data"]["std"]


def _source(config: dict) -> dict:
    data = config["data"]
    held = data.get("source") or {key: data.get(key) for key in FOLDER}
    return {key: value for key, value in held.items() if key not in ELSEWHERE}
