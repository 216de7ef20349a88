"""The tree of exceptions in errors.py is complete."""

import ast
from pathlib import Path

from dlrun import errors

SRC = Path(errors.__file__).parent


def exceptions():
    """Names of the package's classes whose base is an exception, which the names of exceptions show."""
    classes = [
        node
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    raised = {"Exception", "BaseException"}
    while more := {c.name for c in classes if {ast.unparse(base) for base in c.bases} & raised} - raised:
        raised |= more
    return raised - {"Exception", "BaseException"}


def test_the_tree_has_all_exceptions():
    found = exceptions()
    assert {"UserError", "EnvError", "OutOfMemory", "NotStackable"} <= found  # else the search finds too little
    assert [name for name in sorted(found) if name not in (errors.__doc__ or "")] == []
