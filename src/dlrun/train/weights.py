"""Initial weights: from a run, from a .safetensors or state_dict file, or published by torchvision.

Loading cannot run code. A head of another shape keeps its initial weights; everything else must fit.
"""

import os
import re
import shlex
import warnings
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from dlrun.config.build import build, of_runner
from dlrun.config.pairing import CONFIGS
from dlrun.config.signatures import signature
from dlrun.data.sources.fetch import fetch
from dlrun.data.sources.verify import verify
from dlrun.errors import CheckpointError, UserError, counted, some
from dlrun.models.options import options_of
from dlrun.output.checkpoint import load
from dlrun.output.folders import best_weights
from dlrun.paths import open_plain
from dlrun.spec import Spec

PUBLISHED = "https://download.pytorch.org/models/"  # the name of a file ends in the first 8 digits of its SHA-256
# torchvision's DenseNets were published under older names of their modules
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
FIRST = "cifar10_densenet121"  # its run serves where published weights cannot be downloaded
SHOWN = 5  # most names in a message
Weights = dict[str, Tensor]


def start_from(net: nn.Module, spec: Spec, config: dict) -> str:
    """Load the weights that `init` or `model.weights` names into `net`.

    Returns a text on what was loaded, what was not, and why; "" if neither key is set. Raises CheckpointError if the
    weights do not fit.
    """
    outputs = spec.outputs
    if config["init"]:
        try:
            return load_weights(net, config["init"], outputs)
        except CheckpointError as error:
            raise CheckpointError(f"{error}{fitting_value(config, spec)}") from None
    keys = of_runner(config["model"])
    if keys.get("weights"):
        path = published(keys["published"], Path(os.path.expanduser(config["data_dir"])))
        return load_weights(net, str(path), outputs, f"model.weights={keys['weights']}")
    return ""


def fitting_value(config: dict, spec: Spec) -> str:
    """Suggest a value of one of the model's keys with which the weights of `init` fit; "" if there is none."""
    node, hint = config["model"], ""
    for key, annotation in signature(node["_target_"]).keys.items():
        for value in get_args(annotation) if get_origin(annotation) is Literal else ():
            try:
                with torch.device("meta"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch warns that copying to meta tensors does nothing
                    load_weights(build(node | {key: value})(spec), config["init"], spec.outputs)
                hint = hint or f"\n  they fit with model.{key}={value}"
            except (UserError, NotImplementedError):
                continue
    return hint


def other_words(init: str | None, fitted: dict) -> str:
    """A warning if the run that `init` names numbered its vocabulary differently than this data does; else ""."""
    best = best_weights(Path(os.path.expanduser(init or "")))
    if not init or "words" not in fitted or not os.path.exists(best):
        return ""
    theirs, ours = load(best).get("data", {}).get("words", ()), fitted["words"]
    same = sum(a == b for a, b in zip(theirs, ours, strict=False))
    if same == len(ours):
        return ""
    return (
        f"; but {len(ours) - same:,} of {len(ours):,} words had other numbers there and get other words' vectors, "
        "expected the same texts, or that run's vectors by model.embedding.file"
    )


def load_weights(net: nn.Module, source: str, outputs: int | None = None, asked: str | None = None) -> str:
    """Load the weights of a run or a file into `net`. Returns a text on what was loaded.

    outputs: outputs of this net, whose head may differ from that of the weights; None if every weight must fit.
    asked: what the user typed, for messages. Raises CheckpointError if the weights do not fit.
    """
    return copy_weights(net, read_weights(source, asked), outputs, asked or f"init={source}")


def read_weights(source: str, asked: str | None = None) -> Weights:
    """Read the tensors in a run's folder (the best epoch's) or in a file. Raises CheckpointError if there are none."""
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):  # unlike Path.is_dir, it returns False for a name that is too long
        path = best_weights(path)
    kinds = "a run's folder, a checkpoint in it, or a .safetensors or state_dict file"
    try:
        if path.suffix == ".ckpt" or not os.path.exists(path):
            content: Any = load(path)
        elif path.suffix == ".safetensors":
            content = _read_safetensors(path)
        else:
            content = _read_torch(path)
    except CheckpointError as error:
        first = made_by(path.name, source) if not os.path.exists(path) else ""
        raise CheckpointError(
            f"{asked or f'init={source}'}: {error}\n  expected {kinds}{first and f'; to make that run first: {first}'}"
        ) from None
    for wrapper in ("state_dict", "model_state_dict", "model"):  # usual keys of training checkpoints
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    pairs = content.items() if isinstance(content, dict) else ()
    if not pairs or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in pairs):
        raise CheckpointError(f"init={source}: {path} holds no weights\n  expected {kinds}")
    for prefix in ("module.", "_orig_mod."):  # DistributedDataParallel's, torch.compile's
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): value for name, value in content.items()}
    return {OLD_DENSENET.sub(r"\1\2", name): value for name, value in content.items()}


def made_by(name: str, folder: str) -> str:
    """The command that makes the run of an experiment; "" if there is no experiment of that name."""
    known = os.path.isfile(CONFIGS / "experiment" / f"{name}.yaml")
    return f"dl-run experiment={name} run_dir={shlex.quote(folder)}" if known else ""


def _read_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        open_plain(path).close()
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged, or is not a .safetensors file: {error}") from None


def _read_torch(path: Path) -> object:
    try:
        with open_plain(path) as file:
            start = file.read(2)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if start != b"PK" and start[:1] != b"\x80":  # neither a zip, torch's format, nor a pickle, its older one
        raise CheckpointError(f"{path} is not a file of weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile bytes can raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "weights_only" in str(error):  # torch's message explains how to run the code
            reason = "it holds more than tensors, which could run code, or it is damaged"
        raise CheckpointError(f"{path} is not loaded as weights: {reason}") from None


def copy_weights(net: nn.Module, theirs: Weights, outputs: int | None, asked: str) -> str:
    """Copy weights into a net by name; see `load_weights` for the arguments.

    If the net names its BACKBONE, the head is everything else. If not, the head is: weights that differ only in their
    first dimension (ours has size `outputs`); weights named aux*; or, if all convolutions fit, every dense layer after
    the last layer that fits.
    """
    mine, backbone = net.state_dict(), options_of(net).BACKBONE
    fits = [name for name, value in mine.items() if name in theirs and theirs[name].shape == value.shape]
    new = [name for name in mine if name not in fits and not name.endswith("num_batches_tracked")]
    unused = [name for name in theirs if name not in fits and not name.endswith("num_batches_tracked")]
    if backbone and outputs is not None:
        body, rest = ([name for name in names if name.startswith(backbone)] for names in (new, unused))
    else:
        body = [name for name in new if not _is_head(name, mine[name], theirs.get(name), outputs)]
        rest = [name for name in unused if not name.startswith("aux") and (name not in mine or name in body)]
    is_tail = outputs is not None and _is_tail(mine, fits, body) and _is_tail(theirs, fits, rest)
    if (body or rest) and not is_tail:
        raise CheckpointError(f"{asked}: the weights are another model's\n  " + _differences(mine, theirs, body, rest))
    if not fits:
        raise CheckpointError(
            f"{asked}: none of the weights fits this model\n  " + _differences(mine, theirs, new, unused)
        )
    net.load_state_dict({name: theirs[name] for name in fits}, strict=False)
    text = f"{asked}: {counted(len(fits), 'tensor')} loaded"
    missing = [name for name in new if name.startswith("aux") and name not in theirs]
    if head := [_sizes(name, mine[name], theirs.get(name)) for name in new if name not in missing]:
        text += f"; new, because the head differs: {some(head)}"
    if missing:
        text += f"; new, because the weights lack them: {some(missing)}"
    dropped = [name for name in unused if name not in new]
    return text + (f"; not in this model: {some(dropped)}" if dropped else "")


def _is_head(name: str, mine: Tensor, theirs: Tensor | None, outputs: int | None) -> bool:
    """Whether a weight that does not fit belongs to a head: an auxiliary one, or one with another number of outputs."""
    if theirs is None:
        return outputs is not None and name.startswith("aux")
    return mine.dim() > 0 and mine.shape[1:] == theirs.shape[1:] and mine.shape[0] == outputs


def _is_tail(weights: Weights, fits: list[str], misfits: list[str]) -> bool:
    """Whether all misfits come after the last weight that fits, in a net whose convolutions all fit."""
    names, fitting = list(weights), set(fits)
    last = max((i for i, name in enumerate(names) if name in fitting), default=-1)
    come_last = all(names.index(name) > last for name in misfits)
    kernels = [name for name in names if weights[name].dim() > 2]
    return come_last and bool(kernels) and all(name in fitting for name in kernels)


def _differences(mine: Weights, theirs: Weights, body: list[str], rest: list[str]) -> str:
    """Lines with the shapes of the weights that do not fit; at most SHOWN."""
    lines = [
        f"{name}: expected {tuple(mine[name].shape)}, found "
        f"{tuple(theirs[name].shape) if name in theirs else 'nothing'}"
        for name in body
    ]
    lines += [f"{name}: {tuple(theirs[name].shape)} is not in this model" for name in rest if name not in mine]
    return "\n  ".join(lines[:SHOWN]) + (f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def _sizes(name: str, mine: Tensor, theirs: Tensor | None) -> str:
    """A weight's name with its new shape and, if it had one, its old shape."""
    shapes = [tuple(t.shape) for t in (theirs, mine) if t is not None]
    return f"{name} {' -> '.join(map(str, shapes))}"


def published(file: str, data_dir: Path) -> Path:
    """Path of a file that torchvision publishes: in torch's cache, or downloaded to `weights` in the data folder."""
    checksum = "sha256:" + file.rpartition("-")[2].partition(".")[0]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cached = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch") / "hub" / "checkpoints" / file
    if cached.is_file():
        verify(cached, checksum)
        return cached
    instead = "model.weights=null init=RUN, where RUN is a run of this model on other images"
    if file.startswith("densenet121"):  # the one experiment whose net has the form of the published weights
        instead += f", such as {made_by(FIRST, f'outputs/{FIRST}')}"
    return fetch([PUBLISHED + file], data_dir / "weights" / file, checksum, instead=instead)
