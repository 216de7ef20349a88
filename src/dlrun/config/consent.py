"""The packages whose code a config may name besides dl-run's, and whose options the config groups have. No torch.

Each source is the user's own word, and none can be set by a config: DL_RUN_ALLOW in the environment (signatures.py),
installed plugins (plugins.py), a trusted dl-run.yaml (project.py), and `dlrun.allow` in a Python program.
"""

from collections.abc import Collection
from pathlib import Path

from dlrun.config.plugins import plugins
from dlrun.config.project import project

allowed: set[str] = set()  # by `dlrun.allow`


def is_allowed(target: str) -> bool:
    """Whether a config may name this dotted path, which is in another package than dl-run."""
    packages = {*allowed, *project().get("allow", ()), *(plugin.package for plugin in plugins().values())}
    return is_within(target, packages)


def is_within(target: str, packages: Collection[str]) -> bool:
    """Whether a dotted path is that of one of these packages, or of something in it."""
    return any(target == package or target.startswith(f"{package}.") for package in packages)


def option_folders() -> list[Path]:
    """List the folders of config groups that plugins and the trusted dl-run.yaml bring."""
    folders = [plugin.configs for plugin in plugins().values() if plugin.configs]
    return [*folders, *map(Path, project().get("config_dirs", ()))]
