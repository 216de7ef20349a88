"""Read the comments of a config file: its header, and the note after each key. No torch."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from dlrun.config.untrusted import LOADER
from dlrun.errors import UserError

NOTE = re.compile(r"\s#\s+(.+)$")
GLOBAL = re.compile(r"^#\s*@package\s+_global_\s*$", re.MULTILINE)
Keys = tuple[str, ...]  # the keys that lead to a value


@dataclass
class Notes:
    """A config file. header: its first comment, as text. content: its keys. notes: the comment of each key.

    is_global: whether it holds sections, rather than the keys of its group's section.
    """

    header: str
    content: dict
    is_global: bool
    notes: dict[Keys, str] = field(default_factory=dict)


def read_notes(path: Path) -> Notes:
    """Read a YAML file with its comments. Raises UserError if it cannot be read or holds no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        loader = LOADER(text)
        root = loader.get_single_node()
        content = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as error:
        where = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else path
        raise UserError(
            f"cannot read {where}: {error.problem}\n  expected YAML like that of the other configs"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}\n  expected a config in UTF-8") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path} holds {type(content).__name__}: expected keys with values, like the other configs")
    notes = Notes(_header(text), content or {}, bool(GLOBAL.search(text)))
    if isinstance(root, yaml.MappingNode):
        _collect(root, text.splitlines(), (), notes.notes)
    return notes


def _header(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def _collect(node: yaml.MappingNode, lines: list[str], above: Keys, notes: dict[Keys, str]) -> None:
    for key, value in node.value:
        path = (*above, str(key.value))
        line = lines[key.start_mark.line]
        after = value.end_mark if value.end_mark.line == key.start_mark.line else key.end_mark
        is_alone = sum(other.start_mark.line == key.start_mark.line for other, _ in node.value) == 1
        if is_alone and (note := NOTE.search(line, after.column)):
            notes.setdefault(path, note[1])
        if isinstance(value, yaml.MappingNode):
            _collect(value, lines, path, notes)
