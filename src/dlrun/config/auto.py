"""What a config leaves to the data by `auto`: the form of a net, the learning rate, the batch. No torch here.

model.form: the one made for ImageNet from LARGE pixels on or with its weights, else the one for CIFAR.
optimizer.lr: of SGD in proportion to the batch (Goyal et al. 2017, section 2.1) from the papers' rates: 0.1, and 0.01
without normalisation, for 256 samples at ImageNet's sizes and 128 at CIFAR's; of any other optimizer 0.001.
data.batch_size: MOST, or the largest power of two from LEAST on with which an epoch has STEPS steps.
"""

from collections.abc import Sequence

from dlrun.spec import form_for

AUTO = ("model.form", "optimizer.lr", "data.batch_size")
RATED = {"imagenet": 256, "paper": 256}  # samples that the rate is for; 128 in other forms
MOST, LEAST, STEPS = 64, 8, 16


def left_open(config: dict) -> list[str]:
    """The keys that are `auto`."""
    return [key for key in AUTO if value_of(config, key) == "auto"]


def value_of(config: dict, key: str) -> object:
    section, _, name = key.partition(".")
    return _section(config, section).get(name)


def settle(config: dict) -> None:
    """In place, numbers and names for what is `auto`; the batch is the one of a large data set."""
    keys = left_open(config)
    if "data.batch_size" in keys:
        config["data"]["batch_size"] = MOST
    if "model.form" in keys:
        config["model"]["form"] = "imagenet" if config["model"].get("weights") else _form(config)
    if "optimizer.lr" in keys:
        config["optimizer"]["lr"] = _rate(config)


def settle_batch(config: dict, keys: Sequence[str], samples: int) -> None:
    """In place, the batch for so many train samples, and the rate for it where that was left open, too."""
    size = MOST
    while size > LEAST and size * STEPS > samples:
        size //= 2
    while samples % size == 1 and size > 2:  # batch normalisation has no statistics of one
        size -= 1
    config["data"]["batch_size"] = size
    if "optimizer.lr" in keys:
        config["optimizer"]["lr"] = _rate(config)


def words(config: dict, keys: Sequence[str]) -> str:
    """The values, as they can be set."""
    return ", ".join(f"{key}={value_of(config, key)}" for key in keys)


def _section(config: dict, name: str) -> dict:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _form(config: dict) -> str:
    shape = _section(_section(config, "data"), "spec").get("shape")
    is_shape = isinstance(shape, list) and all(isinstance(side, int) for side in shape)
    return form_for(shape if is_shape else [])


def _rate(config: dict) -> float:
    batch = value_of(config, "data.batch_size")
    if str(value_of(config, "optimizer._target_")).rpartition(".")[2].lower() != "sgd" or not isinstance(batch, int):
        return 0.001
    rate = 0.1 if value_of(config, "model.norm") not in (None, "none") else 0.01
    return float(f"{rate * batch / RATED.get(value_of(config, 'model.form') or _form(config), 128):.4g}")
