"""Tests are stored like the code that they test."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_has_a_folder_of_tests():
    packages = [path for path in (ROOT / "src" / "dlrun").iterdir() if (path / "__init__.py").exists()]
    missing = [path.name for path in packages if not list((ROOT / "tests" / path.name).glob("test_*.py"))]
    assert len(packages) > 9 and not missing, f"no tests in {[f'tests/{name}' for name in missing]}"
