"""Find the source of modules, and where they take a name from, without importing them. Say why one is not found.

No torch.
"""

import ast
import os
import shlex
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dlrun.errors import nearest, some
from dlrun.paths import has_working_folder


def source_of(module: str) -> Path | None:
    """Return the file of a module. Each part of its name must be an identifier: a path could leave its package."""
    package, *rest = module.split(".")
    if not all(map(str.isidentifier, (package, *rest))):
        return None
    try:
        spec = find_spec(package)  # finding a top-level package does not import it
    except ValueError:
        spec = None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if not rest and spec.origin and spec.origin.endswith(".py") else None
    base = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def parsed(source: Path) -> ast.Module:
    """Return the syntax tree of a file as it is now. Raises OSError, SyntaxError, or ValueError if it is no text."""
    stamp = source.stat()
    return _parsed(source, stamp.st_mtime_ns, stamp.st_size)


@cache
def _parsed(source: Path, changed: int, size: int) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"), str(source))


def no_module(module: str) -> str:
    """Describe for a message that `source_of` finds no module: the part that is missing, where it was looked for."""
    package, *rest = module.split(".")
    what = f"there is no module {module!r}"
    if not all(map(str.isidentifier, (package, *rest))):
        return what
    try:
        spec = find_spec(package)
    except ValueError:
        spec = None
    if spec is None:
        return what + _not_found(package)
    if not spec.submodule_search_locations:
        is_builtin = not rest and not (spec.origin or "").endswith(".py")
        why = "its parameters are read from Python source, and it has none" if is_builtin else "it is one file"
        return f"{what}: {package} is {spec.origin}\n    {why}"
    folder = Path(next(iter(spec.submodule_search_locations)))
    for name in rest:
        if (folder / f"{name}.py").is_file():
            return f"{what}: {folder / name}.py is one file, without modules in it"
        if not (folder / name).is_dir():
            return f"{what}: {folder} has no {name!r}{nearest(name, _modules(folder))}"
        folder /= name
    return f"{what}: {folder} has no __init__.py\n    expected the module in which the name is defined"


def _not_found(package: str) -> str:
    """Describe where a top-level package was looked for, and how Python can find it."""
    here = Path.cwd() if has_working_folder() else Path()  # the working folder may have been removed
    standard = {os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload")}
    searched = [os.path.abspath(path) for path in sys.path if os.path.isdir(path or os.curdir)]
    searched = [path for path in dict.fromkeys(searched) if path not in standard]
    lines = [
        f": Python finds no {package!r}",
        f"    it looks in {some(searched, 6)}; the working folder is {here}",
    ]
    if place := next((folder for folder in (here, here / "src", here.parent) if package in _modules(folder)), None):
        path = shlex.quote(os.path.relpath(place))
        lines.append(f"    {package!r} is in {place}: set PYTHONPATH={path}, or install it (pip install -e FOLDER)")
    else:
        near = {name for folder in (*map(Path, searched), here, here / "src") for name in _modules(folder)}
        lines[0] += nearest(package, near)
        lines.append(
            "    expected an installed package (pip install -e FOLDER), or the folder that holds it in PYTHONPATH"
        )
    return "\n".join(lines)


def _modules(folder: Path) -> set[str]:
    """Return the names of the modules and packages in a folder."""
    if not folder.is_dir():
        return set()
    paths = [path for path in folder.iterdir() if path.suffix == ".py" or path.is_dir() and any(path.glob("*.py"))]
    return {path.stem for path in paths if path.stem.isidentifier()} - {"__init__"}


def imported_from(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Return the absolute module path of a `from ... import`."""
    base = module.split(".")
    base = base[: len(base) - node.level + is_package] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def origin_of(name: str, tree: ast.Module, module: str, is_package: bool) -> str | None:
    """Return the dotted path that `name`, such as optim.SGD, has outside of the module that uses it; None if unknown.

    tree: of the module.
    """
    head, dot, rest = name.partition(".")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return f"{module}.{name}"
        if isinstance(node, ast.ImportFrom) and (origin := _named(node.names, head)):
            return f"{imported_from(node, module, is_package)}.{origin}{dot}{rest}"
        if isinstance(node, ast.Import) and (origin := _named(node.names, head)):
            return f"{origin}{dot}{rest}"
    return None


def _named(aliases: list[ast.alias], name: str) -> str | None:
    return next((a.name for a in aliases if (a.asname or a.name) == name), None)
