"""A JSON Schema of the config files, for editors: keys, types, ranges, options and the comments that explain them.

It is generated from the signatures that `check` uses and from the configs' own comments. One schema serves
every file: an option has a `_target_` or extends another option; all other files hold sections.
"""

import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType

from dlrun.config.auto import AUTO
from dlrun.config.build import OF_RUNNER
from dlrun.config.check import MODES, SECTIONS, SETTINGS, SWEEP, TRACKER, VALUES, nested_kind
from dlrun.config.named import AUGMENT
from dlrun.config.schema_defaults import code_choices, defaults_lists
from dlrun.config.schema_types import Schema, merged, or_reference, typed
from dlrun.config.signatures import Signature, can_be_own, is_allowed, public_names, signature, spec_names
from dlrun.config.usage import folders_of, group_names
from dlrun.config.yaml_notes import Notes, read_notes
from dlrun.errors import UserError
from dlrun.types import KINDS, Nested

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PARTS = {**SECTIONS, "sweep": SWEEP}
TORCH = r"^torch\.optim\."


def schema(config_dir: str | None = None) -> Schema:
    """Return the schema of the project's config files, and of those in `config_dir`.

    Raises UserError if one of them cannot be read or names an option or a target that does not exist.
    """
    return _Schema(config_dir).whole()


class _Schema:
    """files: by group and option. notes: the comment of a key, by its builder or group."""

    def __init__(self, config_dir: str | None) -> None:
        self.config_dir, self.groups = config_dir, group_names(config_dir)
        self.files: dict[str, dict[str, Notes]] = {group: {} for group in self.groups}
        self.notes: dict[tuple[str, str], str] = {}
        self.targets: dict[str, dict[str, None]] = {name: {} for name in (*PARTS, "tracker")}
        self.nested: dict[str, dict[str, Path]] = {}  # the user's own code by section, such as data.source
        self.definitions: dict[str, Schema] = {}
        for base in folders_of(config_dir):
            for group in self.groups:
                for path in sorted((base / group).rglob("*.yaml")):
                    name = path.relative_to(base / group).with_suffix("").as_posix()
                    self.files[group][name] = notes = read_notes(path)
                    self._read(path, group, notes)

    def _read(self, path: Path, group: str, notes: Notes) -> None:
        """Collect the targets and the comments of a file, and the code that its list of defaults chooses."""
        for chosen, word in code_choices(notes.content):
            self.targets[chosen][self._known(word, path)] = None
        for keys, node in _nodes(notes.content, ()):
            section = keys if notes.is_global else (group, *keys)
            section = ("tracker",) if group == "tracker" and keys else section  # such a file holds one or more of them
            target = node.get("_target_")
            if isinstance(target, str) and len(section) == 1 and section[0] in self.targets:
                self.targets[section[0]][self._known(target, path)] = None
            elif isinstance(target, str) and target.partition(".")[0] not in ("dlrun", "torch"):
                self.nested.setdefault(".".join(section), {})[target] = path
            for key in node:
                if note := notes.notes.get((*keys, str(key))):
                    for owner in (target, ".".join(section)):
                        self.notes.setdefault((str(owner), str(key)), note)

    def _known(self, target: str, path: Path) -> str:
        """Return the target. Raises UserError if it is not there or the user has not allowed it. path: naming it."""
        package = target.partition(".")[0]
        problem = None
        if package not in ("dlrun", "torch") and not is_allowed(target):
            problem = (
                f"{target!r} is code of your own\n  expected: DL_RUN_ALLOW={package} dl-run schema ..., "
                "with its folder in PYTHONPATH"
                if can_be_own(package)
                else f"{target!r} is code of Python itself, which no config may build\n"
                "  expected code of dl-run, torch or your own; if you did not write this file, do not run it"
            )
        else:
            try:
                signature(target)
            except UserError as error:
                problem = str(error)
        if problem:
            raise UserError(f"{path}: _target_={problem}")
        return target

    def whole(self) -> Schema:
        """Return the schema with all definitions."""
        for name, part in PARTS.items():
            targets = list(self.targets[name])
            if not _is_package(part):
                targets = list(dict.fromkeys([*targets, *public_names(part.within, part.kind)]))
            self.definitions[name] = self._section(name, part, targets)
        self.definitions["one tracker"] = self._section("tracker", TRACKER, list(self.targets["tracker"]))
        trackers = [name for name in self.files.get("tracker", {}) if name != "none"]
        self.definitions["tracker"] = {
            "type": ["object", "null"],
            "properties": {name: {"$ref": "#/$defs/one%20tracker"} for name in trackers}
            | {"defaults": {"$ref": "#/$defs/defaults.tracker"}},
            "additionalProperties": False,
        }
        headers = {group: {name: notes.header for name, notes in files.items()} for group, files in self.files.items()}
        self.definitions |= defaults_lists(headers, (*PARTS, "tracker")) | {"config": self._config()}
        # an experiment may have the name of a group's option
        of_group = [{"$ref": f"#/$defs/{name}"} for name in (*PARTS, "tracker", "config")]
        # one that only names another is taken for an experiment, in which that is a mistake
        named = {"contains": {"enum": self._bases()}}
        extends = {"required": ["defaults"], "minProperties": 2, "properties": {"defaults": named}}
        return {
            "$schema": DIALECT,
            "title": "dl-run config",
            "description": "A config of dl-run: an option of a group, or an experiment.",
            "type": ["object", "null"],
            "if": {"type": "object", "anyOf": [extends, *({"required": [name]} for name in ("_target_", *trackers))]},
            "then": {"anyOf": of_group},
            "else": {"$ref": "#/$defs/config"},
            "$defs": self.definitions,
        }

    def _bases(self) -> list[str]:
        """List the options that another option of their group can extend."""
        return sorted({option for name in PARTS for option in self.files.get(name, {})})

    def _config(self) -> Schema:
        text, or_null = {"type": "string", "minLength": 1}, {"type": ["string", "null"], "minLength": 1}
        values = {key: or_null if key in ("run_dir", "resume", "init") else text for key in sorted(VALUES)}
        values["resume_allow"] = {"enum": ["changes", None]}
        values |= {"mode": {"enum": list(MODES)}, "seed": {"type": "integer", "minimum": 0}}
        notes = read_notes(folders_of(None)[0] / "config.yaml").notes
        properties = {key: self._explained(or_reference(value), notes.get((key,))) for key, value in values.items()}
        properties |= {name: {"$ref": f"#/$defs/{name}"} for name in (*PARTS, "tracker")}
        properties |= {"hydra": {"type": "object"}, "defaults": {"$ref": "#/$defs/defaults"}}
        return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}

    def _section(self, name: str, part: Nested, targets: list[str]) -> Schema:
        """Return the schema of a section: the keys of its `_target_`, or those of all if it has none.

        A section without a target changes some keys of the chosen option.
        """
        builders = {target: signature(target) for target in targets}
        for target in targets:
            if target not in self.definitions:
                self.definitions[target] = {}  # nested sections may name it
                self.definitions[target] = self._builder(target, builders[target], name)
        union: dict[str, list[Schema]] = {}
        for target in targets:
            for key, value in self.definitions[target]["properties"].items():
                union.setdefault(key, []).append(value)
        pick: Schema = {"anyOf": [{"enum": targets}], "description": f"the {part.kind} that this section builds"}
        if part.within == "dlrun.optim.optimizers":
            pick["anyOf"].append({"type": "string", "pattern": TORCH})
        properties = {key: merged(values) for key, values in union.items()}
        if name in PARTS:  # an option's file holds the section itself, and may extend another
            properties["defaults"] = {"$ref": f"#/$defs/defaults.{name}"}
        properties["_target_"] = pick
        other = {"properties": {"_target_": {"type": "string", "pattern": TORCH}}, "required": ["_target_"]}
        of_target = [
            {
                "if": {"properties": {"_target_": {"const": target}}, "required": ["_target_"]},
                "then": {"propertyNames": {"enum": ["_target_", "defaults", *self.definitions[target]["properties"]]},
                         "$ref": f"#/$defs/{target}"},
            }
            for target in targets
        ]  # fmt: skip
        strict = {"properties": properties, "additionalProperties": False, "allOf": of_target}
        return {"type": "object", "if": other, "then": {"properties": {"_target_": pick}}, "else": strict}

    def _builder(self, target: str, builder: Signature, section: str) -> Schema:
        """Return the schema of a target's section: its properties."""
        properties = {}
        for key, annotation in builder.keys.items():
            value = self._value(annotation, section, key)
            if f"{section}.{key}" in AUTO:
                value = {"anyOf": [{"const": "auto"}, value]}
            note = self.notes.get((target, key)) or self.notes.get((section, key))
            properties[key] = self._explained(or_reference(value), note)
        for key in OF_RUNNER.get(section, ()):
            if key not in builder.keys:
                properties[key] = self._explained(or_reference(_of_runner(key)), self.notes.get((target, key)))
        return {"description": f"{builder.kind} {target}", "properties": properties}

    def _value(self, annotation: object, section: str, key: str) -> Schema:
        """Return the schema of a value: of a nested section, or of a plain type."""
        inner = nested_kind(annotation)
        if inner is None:
            return typed(annotation)
        names = spec_names(annotation) if inner.within == "dlrun.spec" else public_names(inner.within, inner.kind)
        targets = [name if "." in name else f"{inner.within}.{name}" for name in names]
        definition = f"{inner.within}: {', '.join(names)}" if inner.within == "dlrun.spec" else inner.within
        if own := self.nested.get(f"{section}.{key}", {}) if inner.within != "dlrun.spec" else {}:
            targets += [self._known(target, path) for target, path in own.items()]
            definition = f"{definition} of {section}.{key}"
        definition = definition.replace("/", ".")
        if definition not in self.definitions:
            self.definitions[definition] = {}
            self.definitions[definition] = self._section(f"{section}.{key}", inner, targets)
        reference: Schema = {"$ref": f"#/$defs/{definition.replace(' ', '%20')}"}
        if inner.within == AUGMENT:  # or a list of words
            word = {"type": "string", "pattern": "^[A-Za-z]"}
            return {"anyOf": [reference, {"type": "array", "items": {"anyOf": [word, {"type": "object"}]}}]}
        return {"anyOf": [{"type": "null"}, reference]} if NoneType in typing.get_args(annotation) else reference

    @staticmethod
    def _explained(value: Schema, note: str | None) -> Schema:
        return {**value, "description": note} if note else value


def _of_runner(key: str) -> Schema:
    """Return the schema of a key that the runner reads, and no builder has."""
    if key == "groups":
        settings = {"properties": {name: typed(annotation) for name, annotation in SETTINGS.items()}}
        of_kind = {"type": "object", **settings, "additionalProperties": False}
        return {"type": ["object", "null"], "properties": dict.fromkeys(KINDS, of_kind), "additionalProperties": False}
    if key == "weights":
        return {"enum": ["imagenet", None]}
    return {"type": ["string", "null"], "pattern": r"^[\w-]+-[0-9a-f]{8,64}\.pth$"}


def _nodes(node: dict, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yield a mapping and those in it, each with the keys that lead to it."""
    yield keys, node
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _nodes(value, (*keys, str(key)))


def _is_package(part: Nested) -> bool:
    return part.within in ("dlrun.data", "dlrun.models", "dlrun.tasks")
