"""The command that installs an extra of this project, from a checkout or as an installed package."""

import shlex
import sys


def install(extra: str) -> str:
    """Return the pip command that installs an extra's packages into the running Python."""
    from importlib.metadata import PackageNotFoundError, requires  # takes 20 ms, needed only for the message

    try:
        requirements = [line.split(";") for line in requires("dl-run") or ()]
    except PackageNotFoundError:  # running from a checkout that is not installed
        return f"pip install -e '.[{extra}]'"
    wanted = [name.strip() for name, *mark in requirements if extra in "".join(mark).replace('"', "'").split("'")]
    return f"{shlex.quote(sys.executable)} -m pip install {' '.join(map(shlex.quote, wanted))}"
