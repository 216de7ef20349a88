"""Read the signature of a `_target_` from its source, without importing it.

Importing a model imports torch, which takes a second, and a config must not be able to import any module it names.
A builder's keyword-only parameters are its config keys; the runner passes the positional ones.
"""

import ast
import os
import sys
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile

from dlrun import spec as specs
from dlrun import types
from dlrun.config import consent
from dlrun.config.source import imported_from, no_module, origin_of, parsed, source_of
from dlrun.errors import UserError, first_line, nearest, raised

NAMES = {**vars(typing), **vars(specs), **vars(types)}
# Read before any config, so that only the environment of the process can allow a package.
ALLOWED = frozenset(name.strip() for name in os.environ.get("DL_RUN_ALLOW", "").split(",") if name.strip())


class Unparsed(UserError):
    """A module is not valid Python."""


@dataclass(frozen=True)
class Signature:
    """The parameters of a builder.

    target: the path where it is defined. kind: function or class. positional: annotations of the parameters
    which the runner passes. keys: annotations of the config keys; None accepts any type. net: the class of network
    that a model returns or a task takes. returns: the annotation of a function's result. defaults: of the keys that
    have one which is written out, such as 0.1. called: the parameters of a class's `__call__` or `forward`. has_rest:
    whether it ends with **rest, which takes no config keys. bases: the paths of a class's base classes, nearest first.
    inherited: the keys that only they name.
    """

    target: str
    kind: str
    positional: dict[str, object]
    keys: dict[str, object]
    required: frozenset[str]
    net: str = "nn.Module"
    returns: object = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    called: tuple[str, ...] = ()
    has_rest: bool = False
    bases: tuple[str, ...] = ()
    inherited: frozenset[str] = frozenset()


def is_allowed(target: str) -> bool:
    """Whether a config may name this dotted path of another package: by DL_RUN_ALLOW, or as consent.py states."""
    return consent.is_within(target, ALLOWED) or consent.is_allowed(target)


def can_be_own(package: str) -> bool:
    """Whether an error may suggest allowing this package: not the standard library, dlrun or torch."""
    return package not in sys.stdlib_module_names and package not in ("dlrun", "torch")


def signature(target: str) -> Signature:
    """Return the signature of a dotted path. Raises UserError if there is no such function or class.

    The user's own code is read anew if its file has changed, as a notebook edits it between two runs.
    """
    return _of_builtin(target) if target.startswith(("dlrun.", "torch.")) else _read(target)


@cache
def _of_builtin(target: str) -> Signature:
    return _read(target)


def _read(target: str) -> Signature:
    module, _, name = target.rpartition(".")
    source = source_of(module)
    if source is None:
        raise UserError(f"{target!r}: {no_module(module)}")
    try:
        tree = parsed(source)
    except (SyntaxError, ValueError) as error:
        is_placed = isinstance(error, SyntaxError) and error.lineno  # a byte 0 has no line
        why = raised(error) if is_placed else f"{first_line(error)} ({source})"
        raise Unparsed(f"{target!r} cannot be read as Python: {why}") from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _of_function(node, "function", target)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(node, target, _inherited(node, tree, module, source.name == "__init__.py"))
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            origin = next(a.name for a in node.names if (a.asname or a.name) == name)
            return signature(f"{imported_from(node, module, source.name == '__init__.py')}.{origin}")
    if name in _assigned(tree):
        raise UserError(
            f"{target!r} is made when {module} runs, and its parameters are read without running it\n"
            "    expected a def or a class at the top level of the module (instead of partial(f, key=1), f with a key)"
        )
    names = _public(tree, ast.FunctionDef, ast.ClassDef)
    raise UserError(f"{target!r}: {module} has no {name!r}{nearest(name, names)}")


def _assigned(tree: ast.Module) -> set[str]:
    """Return the names that the module's statements assign or define below the top level: part = partial(f)."""
    names: set[str] = set()
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                    names.add(node.name)
    return names


def public_names(module: str, kind: str) -> list[str]:
    """List the dotted paths of a module's own public functions or classes. kind: function or class."""
    source = source_of(module)
    tree = parsed(source) if source else ast.Module([], [])
    return [f"{module}.{name}" for name in _public(tree, ast.ClassDef if kind == "class" else ast.FunctionDef)]


def _public(tree: ast.Module, *kinds: type[ast.FunctionDef] | type[ast.ClassDef]) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, kinds) and node.name[0] != "_"]


def _of_function(node: ast.FunctionDef, kind: str, target: str) -> Signature:
    args = node.args
    positional = [*args.posonlyargs, *args.args][1 if kind == "class" else 0 :]
    split = len(positional) - len(args.defaults)
    positional_types = {a.arg: _annotation(a) for a in positional[:split]}
    keys: dict[str, object] = {
        a.arg: None for a in positional[split:]
    }  # in other libraries, parameters with a default are keys
    keys |= {a.arg: _annotation(a) for a in args.kwonlyargs}
    needed = {a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None}
    net = next((a.annotation for a in positional if a.arg == "net"), None) if kind == "class" else node.returns
    returns = _evaluate(node.returns) if kind == "function" and node.returns is not None else None
    text = ast.unparse(net) if net else "nn.Module"
    pairs = zip([*positional[split:], *args.kwonlyargs], [*args.defaults, *args.kw_defaults], strict=True)
    defaults = _literals({a.arg: default for a, default in pairs})
    return Signature(
        target, kind, positional_types, keys, frozenset(needed), text, returns, defaults, has_rest=bool(args.kwarg)
    )


def _inherited(node: ast.ClassDef, tree: ast.Module, module: str, is_package: bool) -> Signature | None:
    """Return the signature of the first base class whose source is found and that has parameters."""
    for base in node.bases:
        origin = origin_of(ast.unparse(base), tree, module, is_package)
        try:
            if origin and ((inherited := signature(origin)).keys or inherited.positional or inherited.called):
                return inherited
        except Unparsed:
            raise
        except UserError:  # made when its module runs, or compiled
            continue
    return None


def _of_class(node: ast.ClassDef, target: str, base: Signature | None) -> Signature:
    """Read a class. base: the class that it inherits from, for what it does not name itself."""
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    call = methods.get("__call__") or methods.get("forward")
    called = tuple(arg.arg for arg in call.args.args[1:]) if call else base.called if base else ()
    bases = (base.target, *base.bases) if base else ()
    return replace(_of_constructor(node, target, base), called=called, bases=bases)


def _of_constructor(node: ast.ClassDef, target: str, base: Signature | None) -> Signature:
    """Read a constructor, or a dataclass."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            constructor = _of_function(item, "class", target)
            if base and item.args.kwarg:  # it passes on what it does not name
                return _joined(_without(base, _passed_on(item, base)), constructor)
            if item.args.kwonlyargs or item.args.args[1:]:
                return constructor
    fields = {  # of a dataclass
        item.target.id: item
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    keys = {name: _evaluate(item.annotation) for name, item in fields.items()}
    required = frozenset(name for name, item in fields.items() if item.value is None)
    of_class = Signature(
        target, "class", {}, keys, required, defaults=_literals({n: i.value for n, i in fields.items()})
    )
    return _joined(base, of_class) if base and (not fields or not base.positional) else of_class


def _passed_on(constructor: ast.FunctionDef, base: Signature) -> set[str]:
    """Return the parameters that a constructor gives its base class itself: weight_decay=decay beside **rest."""
    names: set[str] = set()
    order = [*base.positional, *base.keys]
    for call in ast.walk(constructor):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "__init__":
            is_super = isinstance(call.func.value, ast.Call)
            names |= {keyword.arg for keyword in call.keywords if keyword.arg}
            given = [*takewhile(lambda each: not isinstance(each, ast.Starred), call.args)]
            names |= set(order[: max(0, len(given) - (not is_super))])  # Base.__init__(self, ...)
    return names


def _without(base: Signature, names: set[str]) -> Signature:
    """Return the signature of a base class without the config keys of these names."""
    keys = {name: annotation for name, annotation in base.keys.items() if name not in names}
    return replace(base, keys=keys, required=base.required - names)


def _joined(base: Signature, of_class: Signature) -> Signature:
    """Return the signature of a class that has the parameters of its base and its own."""
    return replace(
        of_class,
        positional={**base.positional, **of_class.positional},
        keys={**base.keys, **of_class.keys},
        required=of_class.required | base.required - of_class.keys.keys(),
        net=of_class.net if "net" in of_class.positional else base.net,
        defaults={**base.defaults, **of_class.defaults},
        has_rest=base.has_rest,
        inherited=frozenset(base.keys) - of_class.keys.keys(),
    )


def _literals(defaults: Mapping[str, ast.expr | None]) -> dict[str, object]:
    """Return the values of those defaults that are written out."""
    values: dict[str, object] = {}
    for name, node in defaults.items():
        with suppress(ValueError):  # an expression, or none
            values[name] = ast.literal_eval(node or "none")
    return values


def _annotation(arg: ast.arg) -> object:
    return _evaluate(arg.annotation) if arg.annotation is not None else None


def _evaluate(node: ast.expr) -> object:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return None  # quoted annotations are for type checkers
    try:
        return eval(compile(ast.Expression(node), "<annotation>", "eval"), dict(NAMES))
    except (NameError, TypeError, AttributeError):
        return None  # a type defined in its module: not checked here


def of_rest(builder: Signature) -> str:
    """Say why **rest takes no key, for a message about an unknown key; "" if the builder has none."""
    return "; its ** takes none, since keys are read from the signature: name it after *" if builder.has_rest else ""


def accepts(annotation: object, spec_name: str) -> bool:
    """Whether a builder whose `spec` has this annotation can learn from data of that spec."""
    return annotation is None or spec_name in spec_names(annotation)


def spec_names(annotation: object) -> list[str]:
    """List the class names of an annotation, which may be a union."""
    options = typing.get_args(annotation) or (annotation,)
    return [option.__name__ for option in options if isinstance(option, type)]
