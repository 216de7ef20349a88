"""Find the source of modules, and where they take a name from, without importing them. No torch."""

import ast
from importlib.util import find_spec
from pathlib import Path


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
