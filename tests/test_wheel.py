"""The content of the wheel: all configs and the sweeper, so that it works from any folder; nothing else. And the
tested versions of its dependencies can be installed on every Python that it supports.
"""

from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    builders = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_config(names):
    configs = {f"dlrun/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(configs) > 20 and configs <= names


def test_the_wheel_holds_every_module(names):
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert "hydra_plugins/dlrun_sweeper/sweeper.py" in modules and modules <= names
    assert "dlrun/py.typed" in names, "a type checker reads the annotations of a package only with this file"
    assert "hydra_plugins/__init__.py" not in names  # a namespace that other plugins share


def test_the_wheel_holds_nothing_else(names):
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"dlrun", "hydra_plugins"}
    assert not [name for name in names if "test" in name.lower() or name.endswith((".pyc", ".ckpt", ".ipynb"))]


def test_the_wheel_holds_the_commands(names):
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_tested_versions_say_which_python_they_need():
    """Else pip on Python 3.10 finds no version that it may install."""
    from packaging.requirements import Requirement

    lines = (ROOT / "scripts" / "constraints.txt").read_text().splitlines()
    fixed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    needs = {
        (each.name.lower().replace("_", "-"), each.version): each.metadata.get("Requires-Python") or ""
        for each in distributions()
    }
    known = 0
    for line in fixed:
        need = needs.get((line.name.lower().replace("_", "-"), next(iter(line.specifier)).version))
        known += need is not None
        applies = not line.marker or line.marker.evaluate({"python_version": "3.10"})
        assert not applies or not need or Requirement(f"x{need}").specifier.contains("3.10.0"), f"{line}: {need}"
    assert known > 30
