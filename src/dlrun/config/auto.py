"""Values for config keys set to `auto`: the form of a network, the learning rate, the batch size. No torch here.

model.form: the ImageNet form for images of LARGE pixels or more and for ImageNet weights, else the CIFAR form.
optimizer.lr: for SGD proportional to the batch size (Goyal et al. 2017, section 2.1), from the rates of the papers:
0.1 (0.01 without normalisation) per 256 samples at ImageNet's sizes and per 128 at CIFAR's; 0.001 for other optimizers.
data.batch_size: MOST, or the largest power of two >= LEAST with which an epoch has at least STEPS steps.
"""

from collections.abc import Sequence

from dlrun.spec import form_for

AUTO = ("model.form", "optimizer.lr", "data.batch_size")
RATED = {"imagenet": 256, "paper": 256}  # the batch size that the rate belongs to; 128 for other forms
MOST, LEAST, STEPS = 64, 8, 16


def auto_keys(config: dict) -> list[str]:
    """List the keys whose value is `auto`."""
    return [key for key in AUTO if value_of(config, key) == "auto"]


def value_of(config: dict, key: str) -> object:
    """Return the value of a key such as `optimizer.lr`, or None if it is missing."""
    section, _, name = key.partition(".")
    return _section(config, section).get(name)


def resolve_auto(config: dict) -> None:
    """Replace each `auto` by its value, in place. The batch size is that of a large data set."""
    keys = auto_keys(config)
    if "data.batch_size" in keys:
        config["data"]["batch_size"] = MOST
    if "model.form" in keys:
        config["model"]["form"] = "imagenet" if config["model"].get("weights") else _form(config)
    if "optimizer.lr" in keys:
        config["optimizer"]["lr"] = _rate(config)


def set_batch_size(config: dict, keys: Sequence[str], samples: int) -> None:
    """Set, in place, the batch size for this number of train samples, and the learning rate if `keys` has it."""
    size = MOST
    while size > LEAST and size * STEPS > samples:
        size //= 2
    while samples % size == 1 and size > 2:  # avoid a last batch of one sample: batch normalisation needs two
        size -= 1
    config["data"]["batch_size"] = size
    if "optimizer.lr" in keys:
        config["optimizer"]["lr"] = _rate(config)


def words(config: dict, keys: Sequence[str]) -> str:
    """Format the values of these keys as overrides."""
    return ", ".join(f"{key}={value_of(config, key)}" for key in keys)


def _section(config: dict, name: str) -> dict:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _form(config: dict) -> str:
    shape = _section(_section(config, "data"), "spec").get("shape")
    if isinstance(shape, list) and all(isinstance(side, int) for side in shape):
        return form_for(shape)
    return form_for([])


def _rate(config: dict) -> float:
    batch = value_of(config, "data.batch_size")
    is_sgd = str(value_of(config, "optimizer._target_")).rpartition(".")[2].lower() == "sgd"
    if not is_sgd or not isinstance(batch, int) or abs(batch) >= 10**9:  # the check of the config refuses such a size
        return 0.001
    rate = 0.1 if value_of(config, "model.norm") not in (None, "none") else 0.01
    form = value_of(config, "model.form") or _form(config)
    return float(f"{rate * batch / RATED.get(str(form), 128):.4g}")
