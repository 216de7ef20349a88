"""Imports point down, layer by layer, and the way to a config error is light: read from the syntax trees.

Every folder of the package, and every module at its root, has a row in MAY that names all that it may import of this
project. A test reports every offender at once.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

from dlrun.models.options import Options

SRC = Path(__file__).parents[1] / "src"
FILES = {
    path.relative_to(SRC).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}
GROUND = {"errors", "paths", "types", "spec", "clock", "seeds", "overrides", "output.report"}
MAY = {  # from the lowest layer up; `dlrun` itself, for the version, may be imported by all
    "": set(),
    "call": set(),
    "errors": set(),
    "types": set(),
    "paths": {"errors"},
    "seeds": set(),
    "overrides": set(),
    "spec": {"errors", "types"},
    "clock": {"errors"},
    "system": {"errors", "seeds"},
    "output": GROUND | {"system"},
    "output.report": set(),
    "models.options": {"output.report"},
    "models": {"models.options", "output.report", "errors", "paths", "spec", "types"},
    "config": GROUND | {"output"},
    "optim": GROUND | {"system"},
    "data.base": {"seeds", "spec"},
    "data.sources": {"errors", "paths", "output"},
    "data.boxes": set(),
    "data": GROUND | {"output", "config", "system", "data.base", "data.boxes", "data.sources"},
    "data.images": GROUND | {"output", "config", "system", "data", "data.base", "data.boxes", "data.sources"},
    "data.arrays": GROUND | {"output", "config", "system", "data", "data.base", "data.images"},
    "data.texts": GROUND | {"output", "config", "system", "data", "data.base", "data.sources"},
    "data.table": GROUND | {"output", "config", "system", "data", "data.base"},
    "data.series": GROUND | {"output", "data", "data.base", "data.table"},
    "data.stream": GROUND | {"output", "config", "system", "data", "data.base"},
    "data.envs": GROUND | {"output", "config", "system", "data.base"},
    "data.raw": GROUND | {"data", "data.base", "data.texts"},
    "data.readers": GROUND | {"data", "data.base", "data.sources", "system", "data.images", "data.texts"},
    "tasks.images": {"data.base", "output", "system"},
    "tasks.jobs": set(),
    "tasks.base": GROUND | {"data.base", "system", "optim", "models.options", "tasks.images", "tasks.jobs"},
    "tasks.targets": {"errors", "spec"},
    "tasks.losses": GROUND | {"data.base", "output", "tasks.targets"},
    "tasks.metrics": GROUND | {"output", "system", "tasks.targets", "tasks.losses"},
    "tasks.recipe": GROUND | {"data.base", "data.boxes", "models.options", "system", "tasks.base"},
    "tasks": GROUND
    | {"data.base", "models", "models.options", "output", "system", "optim"}
    | {"tasks.base", "tasks.images", "tasks.targets"}
    | {"tasks.losses", "tasks.metrics", "tasks.recipe"},
    "tasks.generative": GROUND | {"data.base", "models", "output", "system", "optim", "tasks.base", "tasks.images"},
    "tasks.rl": GROUND
    | {"data.base", "models", "models.options", "output", "system", "optim", "tasks.base", "tasks.jobs"},
    "train": GROUND
    | {"data.base", "models.options", "output", "system", "config", "optim", "data.sources"}
    | {"tasks", "tasks.base", "tasks.images", "tasks.losses", "tasks.metrics"},
    "sweep": GROUND | {"output", "system", "config"},
    "stack": GROUND
    | {"data.base", "output", "system", "config", "optim", "models", "tasks", "tasks.base", "tasks.jobs"}
    | {"tasks.metrics", "tasks.rl", "tasks.targets", "train", "sweep"},
    "runs.listing": GROUND | {"output"},
    "runs.live": GROUND | {"output", "runs.listing"},
    "runs.compare": GROUND | {"output", "config", "runs.listing"},
    "tracking": GROUND | {"output", "system", "config", "runs.live", "runs.compare"},
    "runs.ui": GROUND | {"output", "config", "sweep", "runs.listing", "runs.live", "runs.compare"},
    "runs": GROUND
    | {"output", "system", "config", "tasks.images", "train", "sweep"}
    | {"data", "data.base", "data.images", "data.arrays", "data.texts", "data.table", "data.series", "data.raw"}
    | {"runs.listing", "runs.live", "runs.compare", "runs.ui"},
    "api": GROUND
    | {"output", "system", "config", "data", "data.base", "data.arrays", "data.table", "tasks.images"}
    | {"train", "runs", "runs.listing"},
    "cli": GROUND | {"output", "system", "config", "train", "sweep", "stack"},
    "__main__": {"cli", "system"},
    "hydra_plugins": set(),
    "hydra_plugins.dlrun_sweeper": GROUND | {"output", "system", "config", "sweep"},
}
# narrower than their folder's row
MODULES = {
    "train": {"call"},
    "sweep": {"call"},
    "runs": {"call"},
    "config.source": {"errors", "paths"},
    "config.values": {"types"},
    "config.signatures": {"errors", "spec", "types", "config.consent", "config.source"},
    "config.named": {"errors", "types", "config.signatures", "config.values"},
    "config.build": {"errors", "spec", "types", "config.signatures", "config.named", "config.pairing"},
    "data.envs.envs": GROUND
    | {"data.base", "config.extras", "data.envs.breakout", "data.envs.cartpole"}
    | {"data.envs.frames", "data.envs.gymnasium_env"},
    "data.envs.gymnasium_env": GROUND | {"config.signatures"},
    "tracking.trackers": {"types"},
    "system.distributed": {"errors", "seeds"},
    "system.launch": {"errors", "system.cpus", "system.python"},
    "system.cpus": set(),
    "system.forkserver_preload": {"system.signals"},
    "system.signals": set(),
    "train.find_batch": {
        "errors",
        "data.base",
        "data.images.streamed",
        "output",
        "system",
        "train.session",
        "train.trial",
    },
    "train.summary": GROUND | {"config.build", "output.console", "models.autoencoder", "models.gan"},
}
ONLY = {  # imported by no other module
    "cli": {"__main__"},
    "train.session": {
        *("train.start", "train.resume", "train.trial", "train.find_lr", "train.find_batch", "train.step_time"),
        *("stack.stacked_job", "stack.run"),
    },
    "train.start": {"cli", "api", "stack.run", "train.resume"},
    "train.resume": {"cli", "api"},
    "train.summary": {"train.start"},
}
KNOWS_NO_TASK = ("train.engine", "train.state", "output")  # the engine knows no task, model or data set by name
HYDRA = {
    "cli",
    "config.code_options",
    "config.compose",
    "config.explain",
    "config.hydra_internals",
    "config.loader",
    "config.older",
    "config.saved",
    "runs.data_config",
    "train.resume",
    "train.start",
    "stack.configs",
    "stack.run",
    "sweep.space",
    "hydra_plugins.dlrun_sweeper",
}
TYPES_ONLY = {  # modules that know each other's classes for the type checker only, each with the reason
    ("", "api"): "`dlrun` has the names of the API for a type checker; they are loaded when they are first used",
    ("api.scores", "api.run"): "functions of a run, which is a class with methods for them",
    ("stack.functions", "stack.handle"): "functions of handles, which look up their functions here",
    ("train.texts", "train.session"): "the texts of a session, which prints them",
    **{
        ("types", each): "types of arguments, in quotes: what makes them imports torch"
        for each in ("data.base", "data.images.augment", "data.images.masks", "data.texts.corpus", "models.embedding")
    },
}
NAMES_IN_TEXT = {  # modules that hold the names of modules as text, each with the reason
    "": "loads the names of the API when they are first used",
    "call": "train, sweep and runs are packages and functions of the API, which imports the packages",
    "config": "the modules that a config's paths may name; config/ knows them by name and imports none",
    "types": "the modules that the paths of an argument may name",
    "data.envs.gymnasium_env": "Gymnasium registers an environment by the name of its module",
    "sweep.forks": "what the process imports that all jobs are forks of; a job is a whole `dl-run`",
    "tasks.rl.workers": "what the process imports that all workers are forks of",
    "tasks.metrics.measures": "a message names the package of the metrics",
}
PRINT = {"cli", "train.start", "train.resume", "output.terminal", "runs.command", "hydra_plugins.dlrun_sweeper.sweeper"}
LIGHT = {  # on the way to --help, to a config error, to a list of runs
    "call", "api.words", "api.memory", "api.host", "api.command", "api.run", "api.sweeps", "cli", "errors", "types",
    "spec", "paths", "clock", "overrides", "optim.schedules", "config", "output.folders", "output.console",
    "output.written", "output.restarts", "output.text_chart", "output.tracking", "system.load",
    "train.start", "train.resume", "train.limits", "train.best", "train.trainer",
    "runs.cli", "runs.arguments", "runs.command", "runs.listing", "runs.show", "runs.compare", "runs.live",
    "runs.watch", "runs.report", "runs.page", "runs.formats", "runs.evaluate", "runs.predict", "runs.records",
    "runs.completion", "runs.data_cli", "runs.data_config", "tracking.trackers",
    "tracking.follow", "hydra_plugins.dlrun_sweeper",
}  # fmt: skip
HEAVY = {"torch", "polars", "matplotlib", "sklearn", "pandas", "PIL", "tensorboard", "tqdm", "pooch", "requests"}


def short(module: str) -> str:
    return module.removeprefix("dlrun").removeprefix(".")


@cache
def whole_tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree without `if TYPE_CHECKING:` blocks, whose imports never run."""
    found = whole_tree(module)
    body = [node for node in found.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))]
    return ast.Module(body, found.type_ignores)


def statements(body: list[ast.stmt], top: bool) -> Iterator[ast.stmt]:
    """All statements, also those within others; top: without the content of functions."""
    for node in body:
        if not (top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield node
            for part in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from statements(getattr(node, part, []), top)


@cache
def imports(module: str, top: bool = False) -> dict[str, int]:
    """Modules that this one imports, each with a line; top: only those that importing it imports."""
    return imported(module, tree(module), top)


def imported(module: str, source: ast.Module, top: bool) -> dict[str, int]:
    found = {}
    for node in statements(source.body, top):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            whole = {f"{node.module}.{alias.name}": node.lineno for alias in node.names}
            inner = {name: line for name, line in whole.items() if name in FILES}
            found |= inner if len(inner) == len(whole) else inner | {node.module: node.lineno}
    return found


def ours(module: str, top: bool = False) -> dict[str, int]:
    """The modules of the package that this one imports, by their short names."""
    return of_dlrun(imports(module, top))


def of_dlrun(names: dict[str, int]) -> dict[str, int]:
    return {short(name): line for name, line in names.items() if name.split(".")[0] == "dlrun"}


def row_of(module: str) -> str:
    """The row of MAY that a module, by its short name, belongs to: the module's own, else its folder's."""
    return module if module in MAY else module.rpartition(".")[0]


def within(module: str, names: object) -> bool:
    """Whether a module, by its short name, is one of these, or in one of these folders."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def allowed(module: str, target: str) -> bool:
    names = MODULES.get(module)
    if names is not None:
        return target == "" or target in names or row_of(target) in names
    row = row_of(module)
    return target == "" or row_of(target) in MAY[row] | {row}


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


def cycle(arrows: dict[str, set[str]]) -> list[str]:
    """A cycle, or nothing: the arrows that are left after all that lead nowhere are removed."""
    left = {name: set(targets) - {name} for name, targets in arrows.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in free}
    if not left:
        return []
    path = [next(iter(left))]
    while path[-1] not in path[:-1]:
        path.append(next(iter(left[path[-1]] & left.keys())))
    return path[path.index(path[-1]) :]


def test_every_module_has_a_row_and_every_row_a_module():
    rows = {row_of(short(module)) for module in FILES}
    assert not rows - MAY.keys(), "no row says what these may import"
    assert not MAY.keys() - rows - {"hydra_plugins"}, "rows of what is not there"
    assert not (MODULES.keys() | ONLY.keys()) - {short(module) for module in FILES}


def test_imports_point_down():
    wrong = [
        f"{FILES[module]}:{line}: {short(module)} may not import {target or 'dlrun'}"
        for module in FILES
        for target, line in ours(module).items()
        if not allowed(short(module), target)
    ]
    assert not wrong, "\n".join(["", *wrong])


def test_the_rows_contain_no_cycle():
    assert not cycle(MAY), "folders that may import each other"


def test_the_top_folders_form_no_cycle_even_by_imports_in_functions():
    """The folders of src/dlrun as a reader sees them, whatever rows their modules and sub-packages have."""
    arrows = {short(module).partition(".")[0]: set[str]() for module in FILES if short(module)}
    for module in FILES:
        if short(module):
            arrows[short(module).partition(".")[0]] |= {name.partition(".")[0] for name in ours(module) if name}
    assert {"tasks", "data", "output"} <= arrows["train"]
    assert not cycle(arrows)


def test_modules_form_no_cycle_even_by_imports_in_functions():
    arrows = {short(module): set(ours(module)) for module in FILES}
    assert not cycle(arrows)


def test_modules_form_no_cycle_even_by_types():
    """With the imports for the type checker, but for those of TYPES_ONLY, each of which is needed."""
    arrows = {
        short(module): set(of_dlrun(imported(module, whole_tree(module), False)))
        - {target for source, target in TYPES_ONLY if source == short(module)}
        for module in FILES
    }
    assert not cycle(arrows)
    for source, target in TYPES_ONLY:
        assert cycle({**arrows, source: arrows[source] | {target}}), f"{source} need not be allowed {target}"


def test_few_modules_name_modules_in_text():
    """import_module and the like take a text, which the other tests do not see."""
    wrong, used = [], set()
    for module in FILES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Constant) and node.value in FILES and node.value != "dlrun":
                rows = [row for row in NAMES_IN_TEXT if short(module) == row or row and within(short(module), (row,))]
                used |= {*rows}
                wrong += [] if rows else [f"{FILES[module]}:{node.lineno}: {node.value}"]
    assert not wrong, "\n".join(["", *wrong])
    assert used == NAMES_IN_TEXT.keys()


def test_a_cycle_is_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) in (["b", "c", "b"], ["c", "b", "c"])
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_some_modules_have_a_single_importer():
    wrong = [
        f"{short(module)} imports {target}"
        for module in FILES
        for target in ours(module).keys() & ONLY.keys()
        if short(module) not in ONLY[target]
    ]
    assert not wrong


def test_the_engine_knows_no_task_model_or_data_set_by_name():
    wrong = [
        f"{short(module)} imports {target}"
        for module in FILES
        if within(short(module), KNOWS_NO_TASK)
        for target in ours(module)
        if within(target, ("data", "models", "tasks")) and target not in ("data.base", "tasks.base")
    ]
    assert not wrong


def test_hydra_is_imported_in_few_modules():
    wrong = [
        module
        for module in FILES
        if {name.partition(".")[0] for name in imports(module)} & {"hydra", "omegaconf"}
        and not within(short(module), HYDRA)
    ]
    assert not wrong


def test_light_modules_are_light():
    light = [module for module in FILES if within(short(module), LIGHT)]
    assert len(light) > len(LIGHT)
    heavy = {module: {n for n in loaded(module) if n.partition(".")[0] in HEAVY} for module in light}
    assert not {module: names for module, names in heavy.items() if names}


def test_no_assert_and_no_print():
    wrong = []
    for module in FILES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Assert):
                wrong.append(f"{FILES[module]}:{node.lineno}: assert is not for input, and -O drops it")
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id == "print" and short(module) not in PRINT:
                wrong.append(f"{FILES[module]}:{node.lineno}: print")
    assert not wrong, "\n".join(["", *wrong])


def test_data_needs_no_home():
    """Path.home and Path.expanduser raise if there is no home, as in containers."""
    wrong = []
    for module in FILES:
        text = FILES[module].read_text(encoding="utf-8")
        if within(short(module), ("data", "models", "train.weights")):
            if "Path.home(" in text or text.count("expanduser(") != text.count("os.path.expanduser("):
                wrong.append(module)
    assert not wrong


HOLDER = {"data": "data", "other": "data", "owner": "data", "net": "net"}  # variables that hold data or a network


def optional_members(source: ast.AST) -> dict[tuple[str, str], int]:
    """The members of data and networks that a module looks for by name, each with a line."""
    calls = (node for node in ast.walk(source) if isinstance(node, ast.Call))
    return {
        (HOLDER[holder], node.args[1].value): node.lineno
        for node in calls
        if ast.unparse(node.func) in ("getattr", "hasattr") and isinstance(node.args[1], ast.Constant)
        if (holder := ast.unparse(node.args[0]).rpartition(".")[2]) in HOLDER
    }


def documented_members(docstring: str | None) -> set[str]:
    """The members in a docstring's list of optional members: `name`, `name: type` or `name(arguments)`."""
    return set(re.findall(r"`(\w+)(?=[`:(])", re.split("optional", docstring or "", maxsplit=1, flags=re.I)[-1]))


def test_optional_members_are_documented():
    """A member of data that is looked for by its name is in the list of optional members. Those of a network are looked
    for in models/options.py only, by the names in its list.
    """
    (of_data,) = (
        node for node in tree("dlrun.data.base").body if isinstance(node, ast.ClassDef) and node.name == "SampleData"
    )
    documented = documented_members(ast.get_docstring(of_data))
    found = {key: f"{FILES[module]}:{line}" for module in FILES for key, line in optional_members(tree(module)).items()}
    members = {("data", "folds"), ("data", "load_like"), ("data", "report")}
    assert members <= found.keys() and {name for _, name in members} <= documented
    wrong = [f"{where}: {name}" for (kind, name), where in found.items() if kind == "net" or name not in documented]
    assert not wrong, "\n".join(["", *wrong])
    listed = re.findall(r"^(\w+): ", inspect.getdoc(Options), re.M)
    assert listed and listed == [field.name for field in fields(Options)]


def test_a_member_that_is_not_documented_is_found():
    """A name is whole: `fit` is not in the word `fitted`."""
    code = ast.parse("getattr(run.data, 'fit', None)\nhasattr(other, 'load_like')\ngetattr(spec, 'labels')")
    assert optional_members(code) == {("data", "fit"): 1, ("data", "load_like"): 2}
    text = "`shape`. These members are optional: `fitted`, `places(split)`, `sums: Tensor`, data.levels, `init=`"
    assert documented_members(text) == {"fitted", "places", "sums"}


def test_models_take_only_torch():
    names = {
        f"{short(module)}: {name}"
        for module in FILES
        if within(short(module), ("models",))
        for name in imports(module)
        if name.partition(".")[0] not in {"torch", "dlrun", *sys.stdlib_module_names}
    }
    assert not names
