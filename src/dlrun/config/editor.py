"""The command `dl-run schema`: print the JSON Schema of the configs, or set an editor up with it. No torch."""

import argparse
import json
import os
from pathlib import Path
from typing import NoReturn

from dlrun.config.consent import option_folders
from dlrun.config.hydra_section import check_source
from dlrun.config.schema import PARTS, schema
from dlrun.config.usage import folders_of, group_names
from dlrun.config.yaml_notes import read_notes
from dlrun.errors import UserError
from dlrun.output.written import write_whole

KNOWN = (*PARTS, "tracker", "experiment")  # groups whose files the schema describes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"schema: {message}\n  expected dl-run schema [--vscode] [--config-dir DIR]")


def schema_command(arguments: list[str]) -> str:
    """Return the text that `dl-run schema` prints: the schema, or the files that --vscode wrote."""
    parser = _Parser("dl-run schema", allow_abbrev=False)
    parser.description = "Print a JSON Schema of dl-run's config files, for editors."
    parser.add_argument("--vscode", action="store_true", help="write it and VS Code's settings into .vscode/")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder with options of your own")
    flags = parser.parse_args(arguments)
    check_source(flags.config_dir or "")
    if flags.config_dir is not None and not os.path.isdir(flags.config_dir):
        raise UserError(f"--config-dir {flags.config_dir}: no such folder\n  expected a folder with config groups")
    if flags.vscode:
        lines = [str(path) for path in write_vscode(flags.config_dir)]
        lines += [
            f"{os.path.relpath(path)}: its options are not in the schema yet: install the package (pip install -e .), "
            "then run dl-run schema --vscode again"
            for path in _unknown(flags.config_dir)
        ]
        return "\n".join(lines)
    return json.dumps(schema(flags.config_dir), indent=1)


def write_vscode(config_dir: str | None = None) -> list[Path]:
    """Write the schema and the settings of VS Code (its YAML extension) into .vscode/ of the working folder.

    Other settings there are kept. Raises UserError if the file with the settings cannot be read as JSON.
    """
    folder = Path(".vscode")
    target, settings = folder / "dl-run.schema.json", folder / "settings.json"
    try:
        old = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
        if not isinstance(old, dict):
            raise ValueError("it holds no settings")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {settings}: {error}\n  expected JSON without comments; add to it yourself: "
            f'"yaml.schemas": {{"{target}": {json.dumps(_globs(config_dir))}}}'
        ) from None
    text = json.dumps(schema(config_dir), indent=1)
    schemas = old.get("yaml.schemas")
    schemas = (schemas if isinstance(schemas, dict) else {}) | {f"./{target}": _globs(config_dir)}
    old |= {"yaml.schemas": schemas, "yaml.yamlVersion": "1.1"}  # as dl-run reads it: 10_000 is a number
    folder.mkdir(exist_ok=True)
    write_whole(target, text + "\n")
    write_whole(settings, json.dumps(old, indent=2) + "\n")
    return [target, settings]


def _globs(config_dir: str | None) -> list[str]:
    """Return the patterns of the files that the schema is for."""
    bases = ["configs", *([config_dir] if config_dir else []), *map(os.path.relpath, _folders_here())]
    bases = list(dict.fromkeys(map(os.path.normpath, bases)))
    return [f"{base}/{group}/*.yaml" for base in bases for group in [*_groups(config_dir), "tuned"]]


def _groups(config_dir: str | None) -> list[str]:
    """List the groups whose files hold known sections, as those of a group of the user's own do if they are global."""
    names, bases = group_names(config_dir), folders_of(config_dir)
    files = {name: [path for base in bases for path in (base / name).glob("*.yaml")] for name in names}
    return [name for name, paths in files.items() if name in KNOWN or all(read_notes(path).is_global for path in paths)]


def _folders_here() -> list[Path]:
    """Return the folders of options below the working folder: of packages there, and those that are known already."""
    here = Path.cwd().resolve()
    written = [path for pattern in ("*/configs", "src/*/configs") for path in sorted(here.glob(pattern))]
    written = [path for path in written if any((path / group).is_dir() for group in KNOWN)]
    known = [path for path in map(Path.resolve, option_folders()) if path.is_relative_to(here)]
    return list(dict.fromkeys([*written, *known]))


def _unknown(config_dir: str | None) -> list[Path]:
    """Return the folders of options below the working folder whose options the schema does not have."""
    known = {path.resolve() for path in folders_of(config_dir)}
    return [path for path in _folders_here() if path not in known]
