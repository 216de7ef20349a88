"""Installed packages that register themselves with dl-run by an entry point. Installing one is consent to its code.

In the package's pyproject.toml:

    [project.entry-points."dlrun.plugins"]
    mynets = "mynets"

The left side is the plugin's name. The right side is the package that configs may name code of. Its folder `configs`,
if there is one, holds options for the config groups. Nothing is imported here. No torch.
"""

import os
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dlrun.errors import UserError
from dlrun.output.terminal import complain
from dlrun.paths import read_whole

GROUP = "dlrun.plugins"


class Plugin(NamedTuple):
    """package: dotted. configs: its folder of config groups, or None. source: the distribution that registers it."""

    package: str
    configs: Path | None
    source: str


@cache
def plugins() -> dict[str, Plugin]:
    """Return the installed plugins by name. Raises UserError if two have one name.

    A plugin whose package is missing is reported on standard error and skipped: commands that do not need it work.
    The files are read directly: importing importlib.metadata takes ten times as long as this.
    """
    by_name: dict[str, Plugin] = {}
    for source, name, package in registered():
        if name in by_name and by_name[name].source != source:
            raise UserError(
                f"two installed packages register the plugin {name!r}: {by_name[name].source} and {source}\n"
                f"  expected one: pip uninstall one of them"
            )
        folders = _folders(package)
        if folders is None:
            complain(
                "dl-run",
                f"the plugin {name!r} of {source} is left out: it names {package!r}, and there is no such package\n"
                f"  expected a package that can be imported: reinstall {source}, or uninstall it",
            )
            continue
        configs = next((folder for base in folders if (folder := base / "configs").is_dir()), None)
        by_name[name] = Plugin(package, configs, source)
    return by_name


def registered() -> list[tuple[str, str, str]]:
    """List (distribution, plugin, package) of all entry points. The working folder is skipped: it is not installed.

    If a distribution is on the path twice, the first copy counts, as in imports.
    """
    registered, seen = [], set()
    for base in dict.fromkeys(path for path in sys.path if os.path.isdir(path)):
        if os.path.exists(os.curdir) and os.path.samefile(base, os.curdir):
            continue
        with os.scandir(base) as entries:
            folders = [each for each in entries if each.name.endswith((".dist-info", ".egg-info"))]
        for folder in sorted(folders, key=lambda each: each.name):
            name = re.sub(r"[-_.]+", "-", folder.name.rpartition(".")[0].partition("-")[0]).lower()
            if name in seen:
                continue
            seen.add(name)
            try:
                text = read_whole(Path(folder.path) / "entry_points.txt").decode()
            except (OSError, ValueError):
                continue
            source = folder.name.rpartition(".")[0]
            registered += [(source, *pair) for pair in _entries(text)]
    return registered


def _entries(text: str) -> list[tuple[str, str]]:
    """Read the lines `name = package` of this group from entry_points.txt."""
    section, pairs = "", []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == GROUP and "=" in line and not line.startswith(("#", ";")):
            name, _, package = line.partition("=")
            pairs.append((name.strip(), package.split("[")[0].strip()))
    return pairs


def _folders(package: str) -> list[Path] | None:
    """Return the folders of a dotted package, none of a plain module; None if it is not there."""
    top, *rest = package.split(".")
    try:
        spec = find_spec(top) if all(map(str.isidentifier, (top, *rest))) else None
    except (ImportError, ValueError):
        spec = None
    return None if spec is None else [Path(base, *rest) for base in spec.submodule_search_locations or ()]
