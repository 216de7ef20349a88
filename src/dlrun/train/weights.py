"""Starting from weights: of a run of this project, of a .safetensors or state_dict file, or published by torchvision.

What is loaded cannot run code. The head is left as it was initialised where it is another one; all else must fit.
"""

import os
import re
import warnings
from pathlib import Path
from typing import Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from dlrun.config.build import build, of_runner
from dlrun.config.signatures import signature
from dlrun.data.sources.fetch import fetch
from dlrun.data.sources.verify import verify
from dlrun.errors import CheckpointError, UserError, some
from dlrun.output.checkpoint import load
from dlrun.paths import open_plain
from dlrun.spec import Spec

PUBLISHED = "https://download.pytorch.org/models/"  # a file's name ends in the first 8 digits of its SHA-256
# torchvision's DenseNets were published before their modules got the names that they have
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
SHOWN = 5  # names in a message
Weights = dict[str, Tensor]


def start_from(net: nn.Module, spec: Spec, config: dict) -> str:
    """Loads what `init` or `model.weights` names. Gives what was loaded, what was not and why; "" without either."""
    outputs = spec.outputs
    if config["init"]:
        try:
            return load_weights(net, config["init"], outputs)
        except CheckpointError as error:
            raise CheckpointError(f"{error}{fitting_key(config, spec)}") from None
    keys = of_runner(config["model"])
    if keys.get("weights"):
        path = published(keys["published"], Path(os.path.expanduser(config["data_dir"])))
        return load_weights(net, str(path), outputs, f"model.weights={keys['weights']}")
    return ""


def fitting_key(config: dict, spec: Spec) -> str:
    """A line that names the value of a key with which the weights of `init` fit, where there is one; else ""."""
    node, found = config["model"], None
    for key, annotation in signature(node["_target_"]).keys.items():
        for value in get_args(annotation) if get_origin(annotation) is Literal else ():
            try:
                with torch.device("meta"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # nothing is copied to where there are no numbers
                    load_weights(build(node | {key: value})(spec), config["init"], spec.outputs)
                found = found or f"\n  they fit with model.{key}={value}"
            except (UserError, NotImplementedError):
                continue
    return found or ""


def other_words(init: str | None, fitted: dict) -> str:
    """What is to be said where the run that weights are from had other words under the numbers of these; else ""."""
    best = Path(os.path.expanduser(init or "")) / "checkpoints" / "best.ckpt"
    if not init or "words" not in fitted or not os.path.exists(best):
        return ""
    theirs, ours = load(best).get("data", {}).get("words", ()), fitted["words"]
    same = sum(a == b for a, b in zip(theirs, ours, strict=False))
    if same == len(ours):
        return ""
    return (
        f"; but {len(ours) - same:,} of {len(ours):,} words had other numbers there: their vectors are others', "
        "expected the same texts, or that run's vectors by model.embedding.file"
    )


def load_weights(net: nn.Module, source: str, outputs: int | None = None, asked: str | None = None) -> str:
    """The weights of a run, or of a file, into `net`. outputs: of a head that may be another one; None: all must fit.

    asked: what the user wrote, for messages. Gives what was loaded. Raises CheckpointError where they do not fit.
    """
    return copy_weights(net, read_weights(source, asked), outputs, asked or f"init={source}")


def read_weights(source: str, asked: str | None = None) -> Weights:
    """The tensors in a run's folder (the best epoch's), or in a file. Raises CheckpointError where there are none."""
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):  # unlike Path, it takes what is too long for a name
        folder = path / "checkpoints"
        path = next((p for n in ("best", "last") if (p := folder / f"{n}.ckpt").exists()), folder / "best.ckpt")
    kinds = "a run's folder, a checkpoint in it, or a .safetensors or state_dict file"
    try:
        if path.suffix == ".ckpt" or not os.path.exists(path):
            found = load(path)
        elif path.suffix == ".safetensors":
            found = _read_safetensors(path)
        else:
            found = _read_torch(path)
    except CheckpointError as error:
        raise CheckpointError(f"{asked or f'init={source}'}: {error}\n  expected {kinds}") from None
    for wrapper in ("state_dict", "model_state_dict", "model"):  # as others save them
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    pairs = found.items() if isinstance(found, dict) else ()
    if not pairs or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in pairs):
        raise CheckpointError(f"init={source}: {path} holds no weights\n  expected {kinds}")
    for prefix in ("module.", "_orig_mod."):  # DistributedDataParallel's, torch.compile's
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return {OLD_DENSENET.sub(r"\1\2", name): value for name, value in found.items()}


def _read_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        open_plain(path).close()
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged, or no .safetensors file: {error}") from None


def _read_torch(path: Path) -> object:
    try:
        with open_plain(path) as file:
            start = file.read(2)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if start != b"PK" and start[:1] != b"\x80":  # neither a zip, as torch writes, nor a pickle, as it wrote
        raise CheckpointError(f"{path} is not a file of weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile bytes can fail in any way at all
        why = str(error).partition("\n")[0] or type(error).__name__
        if "weights_only" in str(error):  # torch's own words say how to run it
            why = "it holds more than tensors, which could run code, or it is damaged"
        raise CheckpointError(f"{path} is not loaded as weights: {why}") from None


def copy_weights(net: nn.Module, theirs: Weights, outputs: int | None, asked: str) -> str:
    """By name, as `load_weights` has it.

    A head is what the net says (what is not of its BACKBONE); else what differs in the first dimension only, this
    run's outputs; what is named aux*; or, behind the same convolutions, all that follows the last layer that fits.
    """
    mine, backbone = net.state_dict(), getattr(net, "BACKBONE", ())
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
            f"{asked}: none of the weights is for this model\n  " + _differences(mine, theirs, new, unused)
        )
    net.load_state_dict({name: theirs[name] for name in fits}, strict=False)
    text = f"{asked}: {len(fits)} tensors loaded"
    lacking = [name for name in new if name.startswith("aux") and name not in theirs]
    if other := [_sizes(name, mine[name], theirs.get(name)) for name in new if name not in lacking]:
        text += f"; new, since the head is another one: {some(other)}"
    if lacking:
        text += f"; new, since the weights have none: {some(lacking)}"
    left = [name for name in unused if name not in new]
    return text + (f"; not in this model: {some(left)}" if left else "")


def _is_head(name: str, mine: Tensor, theirs: Tensor | None, outputs: int | None) -> bool:
    if theirs is None:
        return outputs is not None and name.startswith("aux")
    return mine.dim() > 0 and mine.shape[1:] == theirs.shape[1:] and mine.shape[0] == outputs


def _is_tail(weights: Weights, fits: list[str], others: list[str]) -> bool:
    """Whether `others` are dense layers behind all that fits, in a net whose convolutions all do."""
    names, fitting = list(weights), set(fits)
    last = max((i for i, name in enumerate(names) if name in fitting), default=-1)
    behind = all(names.index(name) > last for name in others)
    kernels = [name for name in names if weights[name].dim() > 2]
    return behind and bool(kernels) and all(name in fitting for name in kernels)


def _differences(mine: Weights, theirs: Weights, body: list[str], rest: list[str]) -> str:
    lines = [
        f"{name}: expected {tuple(mine[name].shape)}, found "
        f"{tuple(theirs[name].shape) if name in theirs else 'nothing'}"
        for name in body
    ]
    lines += [f"{name}: {tuple(theirs[name].shape)} is not in this model" for name in rest if name not in mine]
    return "\n  ".join(lines[:SHOWN]) + (f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def _sizes(name: str, mine: Tensor, theirs: Tensor | None) -> str:
    shapes = [tuple(t.shape) for t in (theirs, mine) if t is not None]
    return f"{name} {' -> '.join(map(str, shapes))}"


def published(file: str, data_dir: Path) -> Path:
    """torchvision's file of that name: in torch's own cache, or in `weights` under the data folder, else fetched."""
    checksum = "sha256:" + file.rpartition("-")[2].partition(".")[0]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    kept = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch") / "hub" / "checkpoints" / file
    if kept.is_file():
        verify(kept, checksum)
        return kept
    return fetch([PUBLISHED + file], data_dir / "weights" / file, checksum, instead="init=<a run's folder, or a file>")
