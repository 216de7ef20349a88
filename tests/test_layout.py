"""Tests are stored like the code that they test: their folders are those of the package."""

import ast
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


def bases() -> dict[str, list[str]]:
    """The names of the package's classes, each with those of its base classes."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {
        node.name: [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases] for node in nodes
    }


def test_classes_are_few_levels_deep():
    """As docs/design.md says: four levels below Task, three below any other class of the package."""
    found = bases()

    def line(name: str) -> list[str]:
        above = [each for each in found[name] if each in found and each != name]
        return [name, *max((line(each) for each in above), key=len, default=[])]

    lines = {name: line(name) for name in found}
    assert lines["ConditionalGan"] == ["ConditionalGan", "Gan", "Adversarial", "SampleTask", "Task"]
    assert lines["MaskFolder"] == ["MaskFolder", "Masks", "Images", "OnDevice"]
    assert not [each for each in lines.values() if len(each) > (5 if each[-1] == "Task" else 4)]
