"""Read the YAML files of a run's folder, which may be a stranger's: refuse code, leaks and endless growth.

SECURITY.md states what such a file can do.
"""

import re
from pathlib import Path

import yaml

from dlrun.errors import UserError
from dlrun.paths import read_whole

REFERENCE = re.compile(r"(?<!\\)\$\{([^${}:]+)\}")
MOST = 100_000  # values of a config after its references are resolved
LOADER, DEPTH = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 50


def read_yaml(path: Path) -> str:
    """Read a YAML file of a run's folder. Raises OSError, ValueError or YAMLError if dl-run cannot have written it."""
    text = read_whole(path).decode()
    require_plain(text, path.name)
    return text


def require_plain(text: str, name: str) -> None:
    """Raise ValueError for aliases and deep nesting: a few bytes of YAML could fill the memory."""
    depth = 0
    for event in yaml.parse(text, LOADER):
        where = f"{name}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{where}: *{event.anchor} repeats another value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"{where}: lists or mappings nested more than {DEPTH} deep")


def is_call(value: object) -> bool:
    """Whether the value has a resolver call, ${name:...}, also where another reference forms the name."""
    return isinstance(value, str) and ":" in value.partition("${")[2]


def refuse_calls(folder: Path, config: dict, data_dir: str) -> None:
    """Raise UserError for resolver calls: a stranger's folder could send this machine's environment to a server.

    config: plain and unresolved. data_dir: the one call that dl-run itself writes, as the value of that key.
    """
    leaves: list[tuple[str, object]] = [("", config)]
    while leaves:
        key, value = leaves.pop()
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        leaves += [(f"{key}.{name}".lstrip("."), each) for name, each in pairs]
        rest = REFERENCE.sub("", value) if isinstance(value, str) else ""
        asks = is_call(value) or re.search(r"(?<!\\)\$\{", rest)  # a name formed by another reference
        if asks and (key, value) != ("data_dir", data_dir):
            raise UserError(
                f"{folder}: {key}={value} in {folder / '.hydra' / 'config.yaml'} does more than refer to another key\n"
                "  expected values, as dl-run writes them: write the value there if you trust the folder"
            )


def refuse_growth(folder: Path, config: dict) -> None:
    """Raise UserError if nested references would fill the memory."""
    sizes: dict[tuple, int] = {}

    def size(path: tuple[str, ...]) -> int:
        """Count the values that the node at `path` resolves to."""
        if path in sizes:  # a reference to itself is refused when it is resolved
            return sizes[path]
        sizes[path] = 0
        value = _at(config, path)
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
            count = sum(size((*path, str(key))) for key in keys)
        else:
            count = 1 + sum(size(_target(path, each)) for each in REFERENCE.findall(str(value)))
        if count > MOST:
            raise UserError(
                f"{folder}: {'.'.join(path)} in {folder / '.hydra' / 'config.yaml'} becomes more than {MOST:,} values\n"
                "  expected a config as dl-run writes it"
            )
        sizes[path] = count
        return count

    size(())


def _target(path: tuple[str, ...], reference: str) -> tuple[str, ...]:
    """Return the absolute path of a reference in the value at `path`: `a.b[0]` is absolute, `..b` relative."""
    name = reference.strip().lstrip(".")
    dots = len(reference.strip()) - len(name)
    base = path[: len(path) - dots] if dots else ()
    return (*base, *(part for part in re.split(r"[.\[\]]+", name) if part))


def _at(config: object, path: tuple[str, ...]) -> object:
    """Return the node at a path, or None if there is none."""
    for key in path:
        if isinstance(config, dict):
            config = next((value for name, value in config.items() if str(name) == key), None)
        elif isinstance(config, list) and key.isdecimal() and int(key) < len(config):
            config = config[int(key)]
        else:
            return None
    return config
