"""Functions that a config names in one word: losses, metrics, changes of images (types.Named).

A word stands for a `_target_` config: `f1` for a public function of the module that has them, `f1_micro` for the same
with average: micro, `top3` for `top` with k: 3, and a dotted path for the user's own code. No code is imported here.
"""

import re
import typing
from collections.abc import Iterator

from dlrun.config.signatures import Signature, can_be_own, is_allowed, of_rest, public_names, signature
from dlrun.config.values import mismatch
from dlrun.errors import UserError, listed, nearest, some
from dlrun.types import Average, Better, Named, Nested, OfTargets

AVERAGES = (*typing.get_args(Average)[1:], *typing.get_args(OfTargets)[1:])
WORD = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", re.ASCII)
AUGMENT = "dlrun.data.images.augment"
OWN = "the dotted path of a function of your own"


def named_of(annotation: object) -> Named | None:
    """Return the `Named` of a parameter with this annotation; None if it takes no named functions."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is list:
        return named_of(args[0])
    return next((each for each in args[1:] if isinstance(each, Named)), None) if args else None


def expanded(value: object, annotation: object) -> object:
    """Return a config's value with each word replaced by the `_target_` config that it stands for."""
    if named := named_of(annotation):
        if typing.get_origin(annotation) is list:
            return [_node(each, named) or each for each in typing.cast(list, value)]
        return _node(value, named) or value
    return several(value) if isinstance(value, list) and _is_augmentation(annotation) else value


def problems_of_named(value: object, annotation: object, path: str) -> list[str] | None:
    """Describe the errors of a value that names functions; None if this parameter takes no such value."""
    if isinstance(value, list) and _is_augmentation(annotation):
        return _problems_of_changes(value, path)
    if not (named := named_of(annotation)):
        return None
    if typing.get_origin(annotation) is not list:
        return _problems(value, named, path)
    if not isinstance(value, list):
        return [f"{path}={value}: expected a list of words, such as '{path}=[{value}]'"]
    names = [str(each.get("_target_")) if isinstance(each, dict) else str(each) for each in value]
    twice = [f"{path}: {name} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    return twice + [problem for each in value for problem in _problems(each, named, path)]


def words_of(named: Named) -> list[str]:
    """List the words that need no path."""
    built_in = [name.rpartition(".")[2] for name in public_names(named.within, "function")] if named.within else []
    return [*named.words, *built_in]


def _shown(named: Named) -> list[str]:
    """List the words for a message; topK stands for top1, top2 and so on."""
    numbered = [name for name in words_of(named) if name not in named.words and _is_numbered(name, named)]
    return [f"{name}K" if name in numbered else name for name in words_of(named)]


def _is_numbered(name: str, named: Named) -> bool:
    return "k" in signature(f"{named.within}.{name}").required


def _averages(named: Named) -> str:
    """Name a metric with each ending that chooses an average, for a message."""
    names = []
    for average in AVERAGES:
        takes = (name for name in words_of(named) if name not in named.words and _takes_average(name, average, named))
        names += [f"{name}_{average}" for name in list(takes)[:1]]
    return f"; with an average: {', '.join(names)}" if names else ""


def _takes_average(name: str, average: str, named: Named) -> bool:
    keys = signature(f"{named.within}.{name}").keys
    return "average" in keys and not mismatch(average, keys["average"])


def pattern_of(named: Named) -> str:
    """Return a regular expression of all words, dotted paths included."""
    words = "|".join(words_of(named))
    numbered = [name for name in words_of(named) if name not in named.words and _is_numbered(name, named)]
    suffix = f"(_({'|'.join(AVERAGES)}))?" if "average" in _keys_of(named) else ""
    counted = f"|({'|'.join(numbered)})[0-9]+" if numbered else ""
    return rf"^(({words}){suffix}{counted}|{WORD.pattern.replace(')*', ')+')})$" if words else rf"^{WORD.pattern}$"


def _keys_of(named: Named) -> set[str]:
    names = [name for name in words_of(named) if name not in named.words]
    return {key for name in names for key in signature(f"{named.within}.{name}").keys}


def several(words: list) -> dict:
    """Return the section that a list of augmentations stands for: built-in ones, then those of the user's own."""
    section: dict[str, object] = {"_target_": f"{AUGMENT}.Augment", "own": [word for word in words if _is_own(word)]}
    for word in words:
        if not _is_own(word):
            section |= word if isinstance(word, dict) else {word: True}
    return section


def _problems_of_changes(words: list, path: str) -> list[str]:
    builder = signature(f"{AUGMENT}.Augment")
    problems = []
    for word in words:
        if _is_own(word):
            continue
        if not isinstance(word, dict | str):
            problems.append(
                f"{path}: {word!r} is not an augmentation: expected a word, or a mapping such as {{crop: 4}}"
            )
            continue
        for key, value in (word if isinstance(word, dict) else {word: True}).items():
            if key not in builder.keys:
                near, has = nearest(str(key), builder.keys), some([key for key in builder.keys if key != "own"], 30)
                problems.append(f"{path}: there is no augmentation {key!r}{near}\n    expected one of: {has}; or {OWN}")
            elif expected := mismatch(value, builder.keys[key]):
                is_word = isinstance(word, str)
                problems.append(
                    f"{path}: {key} {'alone' if is_word else value}: expected {expected}, as in '{{{key}: ...}}'"
                )
    theirs = [word for word in words if _is_own(word)]
    return problems + (problems_of_named(theirs, builder.keys["own"], path) or [])


def _is_own(word: object) -> bool:
    return isinstance(word, str) and "." in word or isinstance(word, dict) and "_target_" in word


def _is_augmentation(annotation: object) -> bool:
    return any(isinstance(each, Nested) and each.within == AUGMENT for each in typing.get_args(annotation)[1:])


def _node(value: object, named: Named) -> dict | None:
    """Return the `_target_` config of a word or a mapping; None for a word that stands for itself."""
    if isinstance(value, dict):
        return {**value, **_read(value["_target_"], named)}
    return None if value in named.words else _read(str(value), named)


def _read(word: str, named: Named) -> dict[str, object]:
    """Return the target of a word, with the keys that are part of the word."""
    module, _, name = word.rpartition(".")
    module = module or named.within
    for base, keys in _readings(name) if _may_be_read(module, named) else ():
        try:
            builder = signature(f"{module}.{base}")
        except UserError:
            continue
        if keys.keys() <= builder.keys.keys():
            return {"_target_": f"{module}.{base}", **keys}
    return {"_target_": f"{module}.{name}"}


def _readings(name: str) -> Iterator[tuple[str, dict[str, object]]]:
    yield name, {}
    for average in AVERAGES:
        if name.endswith(f"_{average}"):
            yield name.removesuffix(f"_{average}"), {"average": average}
    if match := re.fullmatch(r"(\D+)(\d{1,6})", name, re.ASCII):
        yield match[1], {"k": int(match[2])}


def _may_be_read(module: str, named: Named) -> bool:
    return module == named.within or is_allowed(module)


def _problems(value: object, named: Named, path: str) -> list[str]:
    """Describe the errors of one named function: its word, its parameters, its keys."""
    word = value.get("_target_") if isinstance(value, dict) else value
    if isinstance(value, str) and value in named.words:
        return []
    if not isinstance(word, str) or not WORD.fullmatch(word):
        return [
            f"{path}={value!r}: expected a word, a dotted path, or a mapping with a _target_, "
            f"such as '{{_target_: {(words_of(named) or ['mynets.changes.mine'])[-1]}}}'"
        ]
    module = word.rpartition(".")[0]
    if module and not _may_be_read(module, named):
        known = f"one of: {some(_shown(named), 30)}\n    or " if words_of(named) else ""
        package = module.partition(".")[0]
        named_by = f": DL_RUN_ALLOW={package}" if can_be_own(package) else ""
        return [
            f"{path}={word}: code of the package {package!r} is not allowed here\n"
            f"    expected {known}code of your own, if the environment variable DL_RUN_ALLOW names its package"
            + named_by
        ]
    node = _read(word, named)
    try:
        builder = signature(str(node["_target_"]))
    except UserError as error:
        if module:
            return [f"{path}={error}"]
        known = f"{some(_shown(named), 30)}{_averages(named)}; or {OWN}"
        near = nearest(word, words_of(named))
        return [f"{path}: there is no {word!r}{near}\n{listed('    expected one of: ', [known], 6)}"]
    values = {**(value if isinstance(value, dict) else {}), **node}
    problems = [*_of_parameters(builder, named), *_of_keys(builder, values, named)]
    return [f"{path}={word}: {problem}" for problem in problems]


def _of_parameters(builder: Signature, named: Named) -> Iterator[str]:
    """Describe errors in the parameters that the caller passes, and in the annotation of the result."""
    is_class = builder.kind == "class"
    if is_class and not named.classes:
        yield "it is a class: expected a function"
        return
    if is_class and builder.positional:
        yield f"its constructor takes {', '.join(builder.positional)}: expected only keys, after *"
    names = list(builder.called if is_class else builder.positional)
    default = [] if is_class else [name for name in builder.keys if name in named.takes]
    odd, lacking = [n for n in names if n not in named.takes], [n for n in named.needs if n not in (*names, *default)]
    if odd or lacking or named.better and not names:
        expected = f"({', '.join(named.needs)})" if named.needs else f"some of {', '.join(named.takes)}"
        yield (
            f"its {'__call__ has' if is_class else 'parameters are'} ({', '.join(names)})\n    expected {expected}, "
            f"which are passed by name, and keys of its own after *{' in __init__' if is_class else ''}"
        )
    if named.better and not isinstance(better_of(builder), Better):
        yield (
            "its annotation does not say which values are better\n    expected -> Higher or -> Lower after its "
            "parameters (from dlrun.types import Higher)"
        )


def better_of(builder: Signature) -> Better | None:
    """Return the better direction of a metric, by the annotation of its result; None if it has none."""
    return next((each for each in typing.get_args(builder.returns)[1:] if isinstance(each, Better)), None)


def _of_keys(builder: Signature, values: dict, named: Named) -> Iterator[str]:
    takes = () if builder.kind == "class" else named.takes
    known = {key: annotation for key, annotation in builder.keys.items() if key not in takes}
    name = builder.target.rpartition(".")[2]
    for key, value in values.items():
        if key == "_target_":
            continue
        if key not in known:
            has = f"it has {some(list(known), 12)}" if known else "it has no keys"
            yield f"{name} has no {key!r}{nearest(str(key), known)}: {has}{of_rest(builder)}"
        elif expected := mismatch(value, known[key]):
            yield f"{key}={value!r}: expected {expected}"
    for key in sorted(builder.required - values.keys()):
        yield f"{key} is missing: {name} needs it, as in '{{_target_: {name}, {key}: ...}}'"
