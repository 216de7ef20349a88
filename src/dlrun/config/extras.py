"""The command that installs what an extra of this project brings: one that works in a checkout and without one."""

import shlex
import sys


def install(extra: str) -> str:
    """pip's command line for the packages of an extra, for the Python that runs here."""
    from importlib.metadata import PackageNotFoundError, requires  # 20 ms that only a message needs

    try:
        found = [line.split(";") for line in requires("dl-run") or ()]
    except PackageNotFoundError:  # run from a checkout that is not installed
        return f"pip install -e '.[{extra}]'"
    wanted = [name.strip() for name, *mark in found if extra in "".join(mark).replace('"', "'").split("'")]
    return f"{shlex.quote(sys.executable)} -m pip install {' '.join(map(shlex.quote, wanted))}"
