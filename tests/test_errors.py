"""The tree of exceptions in errors.py is complete."""

import errno
import os
import re
from pathlib import Path

import pytest

from dlrun import errors
from dlrun.errors import DataError, Diverged, UserError

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


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EFBIG, 1), (errno.EACCES, 2)]
)
def test_a_full_disk_is_no_mistake_of_the_user(number, code):
    """However often its error was reworded."""
    with pytest.raises(UserError) as error:
        try:
            try:
                raise OSError(number, os.strerror(number))
            except OSError as reason:
                raise DataError(f"cannot write: {reason.strerror}") from None
        except DataError as reason:
            raise UserError(f"the run: {reason}") from reason
    assert error.value.exit_code == code
    assert UserError("").exit_code == 2 and Diverged("").exit_code == 1
