"""What the last word of a dl-run command line may become: groups, keys, values, runs, flags. No torch here."""

import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType

from dlrun.config.auto import AUTO
from dlrun.config.check import MODES
from dlrun.config.named import named_of, words_of
from dlrun.config.project import output_dir
from dlrun.config.shells import SCRIPTS, replies, split
from dlrun.config.signatures import signature
from dlrun.config.usage import group_names, options
from dlrun.errors import UserError
from dlrun.output.folders import all_runs
from dlrun.overrides import key_of

FLAGS = ("--multirun", "--cfg", "--resolve", "--package", "--config-dir", "--json", "--help", "--version")
OF_FLAGS: dict[str, tuple[str, ...]] = {flag: ("job", "hydra", "all") for flag in ("--cfg", "-c")}
OF_FLAGS |= {flag: () for flag in ("--config-dir", "-cd", "--package", "-p")}
RUNS, SWEEPS = ("resume", "init"), ("sweep.resume", "sweep.join")


def completion_command(arguments: list[str], commands: Iterable[str]) -> str:
    """Run `dl-run completion SHELL`: print its script, or with --words what the last word may become."""
    shell, *rest = arguments or [""]
    if shell not in SCRIPTS or rest and rest[0] != "--words":
        raise UserError(f"completion {shell}: expected dl-run completion {', '.join(SCRIPTS)}")
    return "\n".join(replies(shell, rest[1:], complete(split(shell, rest[1:]), commands)) if rest else [SCRIPTS[shell]])


def complete(words: Sequence[str], commands: Iterable[str]) -> list[str]:
    """List candidates for the last word, including all that start with it. commands: the subcommands."""
    *before, word = words
    if before and before[0] in commands:
        return {"schema": ["--vscode", "--config-dir"], "completion": list(SCRIPTS)}.get(before[0], [])
    if before and before[-1] in OF_FLAGS:
        return [*_config(before)] if before[-1] in ("--package", "-p") else list(OF_FLAGS[before[-1]])
    if word.startswith("-"):
        return list(FLAGS)
    folder = _config_dir(before)
    if "=" not in word:
        candidates = [f"{group}=" for group in group_names(folder)] + keys(word.lstrip("+~"), _config(before))
        mark = word[: len(word) - len(word.lstrip("+~"))]
        return [*(mark + each for each in candidates), *([] if before else commands)]
    key, is_several = key_of(word), any(flag in before for flag in ("-m", "--multirun"))
    head = word[: word.index("=") + 1] + parted(word.partition("=")[2], is_several)
    if key in group_names(folder):
        return [head + option for option in options(key, folder)]
    base = next((each.partition("=")[2] for each in reversed(before) if key_of(each) == "output_dir"), output_dir())
    if key in RUNS:
        return [head + each for each in runs_in(base)]
    if key in SWEEPS:
        return [head + each for each in ("last", *sweeps_in(base))]
    return [head + value for value in values(key, _config(before))]


def runs_in(base: str) -> list[str]:
    """List what may name a run under a folder: `last`, and all folders, the newest first."""
    return ["last", *map(str, reversed(all_runs(Path(base))))]


def sweeps_in(base: str) -> list[str]:
    """List the folders of the sweeps under a folder, the newest first."""
    parents = dict.fromkeys(folder.parent for folder in reversed(all_runs(Path(base))))
    return [str(folder) for folder in parents if (folder / "sweep.json").is_file()]


def parted(value: str, is_several: bool = False) -> str:
    """Return the elements of a list, or of the values of a sweep, that stand before the one being typed."""
    match = re.match(r"(.*[\[,]\s*)" if is_several or value.startswith("[") else r"()", value)
    return match[1] if match else ""


def keys(word: str, config: Mapping[str, typing.Any]) -> list[str]:
    """List the keys of the section that the word is in: those of its config and those that have a default."""
    path = word.rpartition(".")[0]
    section = {"allow": None} if path == "resume" else _node(config, path)
    if not isinstance(section, Mapping):
        return []
    names = dict.fromkeys([*section, *_annotations(section)])
    names.pop("_target_", None)
    if not path:
        names = dict.fromkeys(name for name in names if name != "resume_allow") | {"resume.allow": None, "seeds": None}
    dots = {name: "." if isinstance(section.get(name), Mapping) else "=" for name in names}
    return [f"{path}.{name}{dots[name]}" if path else f"{name}{dots[name]}" for name in names]


def values(key: str, config: Mapping[str, typing.Any]) -> list[str]:
    """List the values of a key: its choices, if it has any, else its present value."""
    if key in ("mode", "resume.allow"):
        return list(MODES) if key == "mode" else ["changes"]
    path, _, name = key.rpartition(".")
    section = _node(config, path)
    if not isinstance(section, Mapping):
        return []
    now = _text(section.get(name))
    choices = list(dict.fromkeys(_choices(_annotations(section).get(name)))) or ([now] if now else [])
    return [*choices, *(["auto"] if key in AUTO else [])]


def _choices(annotation: object) -> list[str]:
    """List the words that a type accepts; of a list, those of its elements."""
    if named := named_of(annotation):
        return words_of(named)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return [_text(each) for each in args]
    if annotation is bool:
        return ["true", "false"]
    if annotation is NoneType:
        return ["null"]
    inner = args if origin in (typing.Union, UnionType) else args[:1] if origin in (typing.Annotated, list) else ()
    return [word for each in inner for word in _choices(each)]


def _text(value: object) -> str:
    """Return a plain value as it is typed; "" for any other one."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float | str) else ""


def _annotations(section: Mapping[str, typing.Any]) -> Mapping[str, object]:
    target = section.get("_target_")
    try:
        return signature(target).keys if isinstance(target, str) else {}
    except UserError:
        return {}


def _node(config: Mapping[str, typing.Any], path: str) -> object:
    node: object = config
    for name in path.split(".") if path else ():
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _config_dir(words: Sequence[str]) -> str | None:
    folder = flag_value(words, "--config-dir", "-cd")
    return folder if folder and os.path.isdir(folder) else None


def flag_value(words: Sequence[str], *flags: str) -> str | None:
    """Return the value of a flag, typed as --flag VALUE or --flag=VALUE; None without it."""
    folder = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag in flags:
            folder = value if equals else following
    return folder or None


def _config(words: Sequence[str]) -> Mapping[str, typing.Any]:
    """Compose the config of the words typed so far; if some are incomplete, of those that can be composed."""
    from dlrun.config.compose import compose
    from dlrun.config.saved import container

    typed = [word for word in words if "=" in word and not word.startswith("-")]
    single = [word for word in typed if "," not in word and key_of(word) != "seeds"]
    for overrides in (typed, single, [word for word in single if word.partition("=")[0] in group_names()], []):
        try:
            composed = compose(overrides, _config_dir(words))[0]
            return typing.cast("Mapping[str, typing.Any]", container(composed, resolve=False))
        except UserError:
            continue
    return {}
