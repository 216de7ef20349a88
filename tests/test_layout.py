"""Tests are stored like the code that they test: their folders are those of the package."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "dlrun"


def folders_with(pattern: str, root: Path) -> set[str]:
    """The folders below a root that hold such a file, by their paths there."""
    return {path.parent.relative_to(root).as_posix() for path in root.rglob(pattern)} - {"."}


def test_every_package_has_tests_and_every_folder_of_tests_a_package():
    packages, tests = folders_with("__init__.py", PACKAGE), folders_with("test_*.py", TESTS)
    assert len(packages) > 25
    assert not packages - tests, "packages without a test in the folder of tests of their name"
    assert not tests - packages, "folders of tests without a package"


def test_every_file_of_tests_has_a_name_of_its_own():
    """pytest imports them by their names alone."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]
