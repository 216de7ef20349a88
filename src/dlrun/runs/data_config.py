"""Compose configs with other data, as dl-run's command line would. No torch here."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dlrun.config.check import check, check_section
from dlrun.config.compose import compose
from dlrun.config.saved import plain, read_config
from dlrun.errors import UserError, first_line
from dlrun.overrides import key_of


def compose_data(name: str, overrides: list[str]) -> DictConfig:
    """Compose a whole config with this data set. Raises UserError for an unknown data set or key."""
    arguments = [f"data={name}", *overrides]
    if hydras := next(
        (override for override in overrides if key_of(override).partition("/")[0].startswith("hydra")), None
    ):
        raise UserError(
            f"{hydras}: the hydra section cannot be set here\n  expected keys of the data, such as data.batch_size=8"
        )
    return compose(arguments)[0]


def other_config(folder: Path, overrides: list[str]) -> dict:
    """Return a run's config with other data, checked.

    data=NAME composes a new data section; keys without it change the section of the run.
    """
    saved, names = read_config(folder)
    name = next((o.partition("=")[2] for o in overrides if o.startswith("data=")), None)
    rest = [o for o in overrides if not o.startswith("data=")]
    if name:
        config = plain(saved) | {"data": plain(compose_data(name, rest))["data"]}
        names = names | {"data": name}
    else:
        for override in rest:
            key, _, value = override.partition("=")
            if not _has(saved, key):
                raise UserError(
                    f"{override}: the run's config has no {key!r}\n"
                    "  expected a key that dl-runs show RUN --config lists, or data=NAME before it"
                )
            try:
                OmegaConf.update(saved, key, OmegaConf.from_dotlist([f"value={value}"]).value)
            except (OmegaConfBaseException, YAMLError) as error:
                raise UserError(
                    f"{override}: {first_line(error)}\n  expected a value that dl-run's command line accepts"
                ) from None
        config = plain(saved)
    config["init"] = None
    check(config, names)
    return config


def _has(config: DictConfig, key: str) -> bool:
    """Whether the config has this key, even with the value null."""
    nothing = object()
    try:
        return OmegaConf.select(config, key, default=nothing) is not nothing
    except OmegaConfBaseException:  # not a key, such as data.[
        return False


def data_config(name: str, overrides: list[str]) -> dict:
    """Return the checked data section of a data set, whether or not the default model can learn from it."""
    config = plain(compose_data(name, overrides))["data"]
    check_section("data", config)
    return config
