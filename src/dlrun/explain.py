"""Hydra's errors in this project's words: what happened, what was expected, how to fix it."""

import re

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from dlrun.build import CONFIGS
from dlrun.errors import nearest


def explain(error: Exception, arguments: list[str]) -> str:
    """One short message for an error of Hydra or OmegaConf."""
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: {error}".splitlines()[0] + "\n  expected key=value, as in trainer.epochs=5"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(str(error.missing_cfg_file), list(error.options or ()))
    found = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", str(error)) or re.search(
        r"Could not delete from config\. '([^']+)'", str(error)
    )
    if found:
        return _unknown_key(found[1].split("@")[0], arguments)
    return str(error).split("\n\tfull_key")[0].strip()


def _missing_option(name: str, options: list[str]) -> str:
    group, _, option = name.rpartition("/")
    if not group:
        return f"there is no config {name!r}"
    options = options or sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))
    listed = f"\n  expected one of: {', '.join(options)}" if options else ""
    return f"{group}={option}: there is no such option{nearest(option, options)}{listed}"


def _unknown_key(key: str, arguments: list[str]) -> str:
    given = next((a for a in arguments if a.lstrip("+~").split("=")[0].split("@")[0] == key), key)
    keys = known_keys(arguments)
    last = key.rpartition(".")[2]
    near = nearest(key, keys) or nearest(last, [k for k in keys if k.rpartition(".")[2] == last] or [])
    if not near:  # the right name in the wrong place
        same = [k for k in keys if k.rpartition(".")[2] == last]
        near = f"; did you mean {same[0]!r}?" if same else ""
    parent = key.rpartition(".")[0]
    siblings = [k for k in keys if k.rpartition(".")[0] == parent] or sorted(k for k in keys if "." not in k)
    return f"{given}: there is no key {key!r}{near}\n  expected one of: {', '.join(siblings)}"


def known_keys(arguments: list[str]) -> list[str]:
    """Every key and group of the config that these arguments choose, as far as they can be understood."""
    groups = [a for a in arguments if "." not in a.split("=")[0] and (CONFIGS / a.split("=")[0]).is_dir()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            config = compose("config", groups)
        except Exception:  # a second error in the arguments: the defaults' keys will do  # noqa: BLE001
            config = compose("config")
    keys = []

    def walk(node: object, path: str) -> None:
        for name, value in node.items():
            inner = f"{path}.{name}" if path else str(name)
            if name != "_target_":
                keys.append(inner)
            if isinstance(value, dict):
                walk(value, inner)

    walk(OmegaConf.to_container(config), "")
    return keys
