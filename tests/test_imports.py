"""Imports run one way (docs: the design), and what a config error needs is light: read from the syntax trees."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = {
    path.relative_to(SRC).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}
BASICS = {"dlrun.errors", "dlrun.spec", "dlrun.types"}
# What the modules of a package, or one module, may import of this project: names of modules, or of packages with a dot.
MAY = {
    "dlrun.errors": set(),
    "dlrun.types": set(),
    "dlrun.clock": {"dlrun.errors"},
    "dlrun.seeds": set(),
    "dlrun.spec": {"dlrun.errors"},
    "dlrun.schedules": {"dlrun.types"},
    "dlrun.optimizers": BASICS,
    "dlrun.processes.world": {"dlrun.errors", "dlrun.seeds"},
    "dlrun.processes.python": set(),
    "dlrun.processes.launch": {"dlrun.errors", "dlrun.processes.python"},
    "dlrun.update": {"dlrun.errors", "dlrun.processes.world"},
    "dlrun.place": {"dlrun.errors", "dlrun.processes.world"},
    "dlrun.output.plots": {"dlrun.spec"},
    "dlrun.config.signatures": BASICS,
    "dlrun.build": BASICS | {"dlrun.config.signatures"},
    "dlrun.summary": BASICS | {"dlrun.build", "dlrun.output.console"},
    "dlrun.models.": BASICS | {"dlrun.models."},
    "dlrun.data.": BASICS
    | {"dlrun.output.folders", "dlrun.seeds", "dlrun.config.signatures", "dlrun.processes.python", "dlrun.data."},
    "dlrun.sweep.": BASICS
    | {
        "dlrun.output.console",
        "dlrun.output.folders",
        "dlrun.config.overrides",
        "dlrun.processes.python",
        "dlrun.sweep.",
    },
    "dlrun.tasks.": BASICS
    | {"dlrun.seeds", "dlrun.place", "dlrun.output.plots", "dlrun.processes.", "dlrun.update", "dlrun.tasks."},
}
DOORS = (
    "dlrun.cli",
    "dlrun.config.explain",
    "dlrun.config.flags",
    "dlrun.config.loader",
    "dlrun.config.saved",
    "dlrun.after.data_config",
)
ENGINE = ("dlrun.engine", "dlrun.training", "dlrun.checkpoint", "dlrun.run", "dlrun.output.")
LIGHT = [
    "cli", "build", "spec", "types", "errors", "clock", "schedules", "config.explain", "config.flags",
    "config.hydra_section", "config.signatures",
    "config.saved", "config.limits", "config.overrides", "output.folders", "output.console", "after.cli",
    "after.listing", "after.show", "after.compare", "after.report", "after.page", "after.formats", "after.evaluate",
    "after.predict", "after.completion", "after.data_cli", "after.data_config",
]  # fmt: skip
HEAVY = {"torch", "matplotlib", "sklearn", "pandas", "PIL", "tensorboard", "tqdm", "pooch", "requests"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports(module: str, top: bool = False) -> set[str]:
    """Modules that this one imports; top: only those that importing it imports."""
    found = set()
    for node in outside_functions(tree(module)) if top else ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & FILES.keys() or {node.module}
    return found


def outside_functions(node: ast.AST) -> list[ast.AST]:
    inside = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, inside)]
    return children + [found for child in children for found in outside_functions(child)]


def matches(module: str, names: object) -> bool:
    return any(module == name or name.endswith(".") and module.startswith(name) for name in names)


@cache
def loaded(module: str) -> frozenset[str]:
    """All that comes with `import module`, as far as this project's own modules decide."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports(name, top=True) if name in FILES else []
    return frozenset(seen)


def test_every_module_is_read():
    assert {
        "dlrun.cli",
        "dlrun.engine",
        "dlrun.tasks.supervised",
        "hydra_plugins.dlrun_sweeper.sweeper",
    } <= FILES.keys()


@pytest.mark.parametrize("module", FILES)
def test_imports_run_one_way(module):
    ours = {name for name in imports(module) if name.partition(".")[0] == "dlrun"} - {"dlrun"}
    allowed = next((names for name, names in MAY.items() if matches(module, [name])), None)
    if allowed is not None:
        assert not {name for name in ours if not matches(name, allowed)}
    assert "dlrun.cli" not in ours or module == "dlrun.__main__", "nothing imports the command"
    starts = {"dlrun.session", "dlrun.summary"} & ours
    assert not starts or module == "dlrun.cli", "only the command starts sessions and summaries"
    assert module.startswith("dlrun.after") or not any(name.startswith("dlrun.after") for name in ours)
    if matches(module, ENGINE):
        concrete = {name for name in ours if matches(name, ["dlrun.data.", "dlrun.models.", "dlrun.tasks."])}
        assert concrete <= {"dlrun.tasks.base"}, "the engine knows no task, model or data set by name"


@pytest.mark.parametrize("module", FILES)
def test_no_two_modules_import_each_other(module):
    for name in imports(module, top=True) & FILES.keys() - {module}:
        assert module not in loaded(name), f"{name} imports {module}"


@pytest.mark.parametrize("module", FILES)
def test_hydra_stays_at_the_door(module):
    names = {name.partition(".")[0] for name in imports(module)}
    if not module.startswith("hydra_plugins") and module not in DOORS:
        assert not names & {"hydra", "omegaconf"}


@pytest.mark.parametrize("module", [f"dlrun.{name}" for name in LIGHT] + ["hydra_plugins.dlrun_sweeper.sweeper"])
def test_light_modules_are_light(module):
    assert not {name for name in loaded(module) if name.partition(".")[0] in HEAVY}


@pytest.mark.parametrize("module", FILES)
def test_no_assert_and_no_print(module):
    for node in ast.walk(tree(module)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert is not for input, and -O drops it"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            talks = ("dlrun.cli", "dlrun.after.cli", "hydra_plugins.dlrun_sweeper.sweeper")
            assert module in talks, f"line {node.lineno}: print"


@pytest.mark.parametrize("module", [m for m in FILES if matches(m, ("dlrun.data.", "dlrun.models.", "dlrun.weights"))])
def test_data_needs_no_home(module):
    text = FILES[module].read_text(encoding="utf-8")
    assert "Path.home(" not in text, "it raises where there is none, as in containers"
    assert text.count("expanduser(") == text.count("os.path.expanduser("), "Path's raises there, too"


@pytest.mark.parametrize("module", FILES)
def test_models_take_only_torch(module):
    if module.startswith("dlrun.models."):
        names = {name.partition(".")[0] for name in imports(module)}
        assert names <= {"torch", "dlrun"} | set(sys.stdlib_module_names)
