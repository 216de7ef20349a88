"""`dl-run new NAME`: write a package with a network, a data set, a loss, an experiment and a test. No torch."""

import argparse
import keyword
import os
import re
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from dlrun.config.consent import option_folders
from dlrun.config.pairing import CONFIGS
from dlrun.errors import UserError
from dlrun.output.written import write_whole
from dlrun.paths import has_working_folder

TEMPLATE = Path(__file__).resolve().parent.parent / "template"
NAME = "mynets"  # in the template
FILES = {  # of the package: the template's file
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "readme.txt",
    f"src/{NAME}/__init__.py": "init.py.txt",
    f"src/{NAME}/nets.py": "nets.py.txt",
    f"src/{NAME}/readers.py": "readers.py.txt",
    f"src/{NAME}/losses.py": "losses.py.txt",
    f"src/{NAME}/configs/model/{NAME}_cnn.yaml": "model.yaml.txt",
    f"src/{NAME}/configs/data/{NAME}_bars.yaml": "data.yaml.txt",
    f"src/{NAME}/configs/experiment/{NAME}.yaml": "experiment.yaml.txt",
    f"tests/test_{NAME}.py": "check.py.txt",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"new: {message}\n  expected dl-run new NAME, the name of a package such as {NAME}")


def new_command(arguments: list[str]) -> str:
    """Write the package into a new folder of its name. Returns the text to print."""
    parser = _Parser("dl-run new", allow_abbrev=False)
    parser.description = "Write a package of your own for dl-run: a network, data, a loss, an experiment and a test."
    parser.add_argument("name", metavar="NAME")
    name = parser.parse_args(arguments).name
    _check(name)
    folder = Path(name)
    try:
        folder.mkdir()
    except FileExistsError:
        raise UserError(
            f"new {name}: {_absolute(folder)} is there already\n  expected another name or folder"
        ) from None
    except OSError as error:
        raise _unwritable(name, folder, error) from None
    try:
        for target, source in FILES.items():
            path = folder / target.replace(NAME, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, (TEMPLATE / source).read_text(encoding="utf-8").replace(NAME, name))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # no half of a package
        if isinstance(error, OSError):
            raise _unwritable(name, folder, error) from None
        raise
    return "\n".join(
        [
            *(str(folder / target.replace(NAME, name)) for target in FILES),
            "",
            f"cd {name} && {shlex.quote(sys.executable)} -m pip install -e .",
            f"dl-run experiment={name}",
        ]
    )


def _unwritable(name: str, folder: Path, error: OSError) -> UserError:
    return UserError(f"new {name}: cannot write {_absolute(folder)}: {error.strerror}\n  expected a writable folder")


def _absolute(folder: Path) -> Path:
    return folder.absolute() if has_working_folder() else folder  # the working folder may have been removed


def _check(name: str) -> None:
    """Raise UserError unless the name can be that of a new package, which pip installs, too."""
    if not re.fullmatch("[a-z]([a-z0-9_]*[a-z0-9])?", name) or keyword.iskeyword(name):
        raise UserError(
            f"new {name}: expected the name of a package: small letters, digits, and _ between them, such as {NAME}"
        )
    if not _is_free(name):
        raise UserError(f"new {name}: there is a package of this name already\n  expected another name")
    if option := _option(name):
        raise UserError(f"new {name}: there is an option of this name already: {option}\n  expected another name")


def _option(name: str) -> str | None:
    """Return an existing option of this name, or one that the package would define again; None if there is none."""
    files = [Path(target.replace(NAME, name)) for target in FILES if "/configs/" in target]
    written = {f"{path.parent.name}={path.stem}" for path in files}
    for folder in (CONFIGS, *option_folders()):
        for path in sorted(folder.glob("*/*.yaml")):
            if path.stem == name or f"{path.parent.name}={path.stem}" in written:
                return f"{path.parent.name}={path.stem}"
    return None


def _is_free(name: str) -> bool:
    """Whether neither a module nor an installed distribution has this name, which pip would replace by the new one."""
    if os.path.lexists(name):
        return True  # `mkdir` reports it, with its path
    if name in sys.stdlib_module_names or name in ("dlrun", "dl_run", "configs"):
        return False
    try:
        distribution(name)
    except PackageNotFoundError:
        pass
    else:
        return False
    try:
        return find_spec(name) is None
    except (ImportError, ValueError):
        return True
