"""The tree of exceptions in errors.py is complete."""

import re
from pathlib import Path

from dlrun import errors

SRC = Path(errors.__file__).parent


def exceptions():
    """Names of the package's classes whose base is an exception, which the names of exceptions show."""
    texts = [path.read_text(encoding="utf-8") for path in SRC.rglob("*.py")]
    classes = [found for text in texts for found in re.findall(r"^ *class (\w+)\(([^)]*)\)", text, re.MULTILINE)]
    raised = {"Exception", "BaseException"}
    while more := {name for name, bases in classes if set(re.split(r"[,\s]+", bases)) & raised} - raised:
        raised |= more
    return raised - {"Exception", "BaseException"}


def test_the_tree_has_all_exceptions():
    found = exceptions()
    assert {"UserError", "EnvError", "OutOfMemory", "NotStackable"} <= found  # else the search finds too little
    assert [name for name in sorted(found) if name not in (errors.__doc__ or "")] == []
