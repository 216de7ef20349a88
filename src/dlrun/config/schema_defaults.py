"""The JSON Schema of lists of defaults: which options of which groups a config may choose or extend."""

from collections.abc import Iterator, Mapping

from dlrun.config.check import CODE, SECTIONS, is_path
from dlrun.config.schema_types import REFERENCE, Schema

PATH = {"type": "string", "pattern": r"^[A-Za-z]\w*(\.[A-Za-z]\w*)+$"}  # of code, as an option


def defaults_lists(headers: Mapping[str, Mapping[str, str]], groups: tuple[str, ...]) -> dict[str, Schema]:
    """Return definitions: the list of a config, and of an option of each of `groups`.

    headers: by group and option, to explain it. A config is an experiment, or an option of the group model; it extends
    those, and an option the others of its group.
    """
    definitions: dict[str, Schema] = {}
    keys: dict[str, Schema] = {}
    for group, options in headers.items():
        definitions[f"options.{group}"] = _options(group, options)
        one = {"$ref": f"#/$defs/options.{group}"}
        leads = ("override /", "", "/", "optional ", "optional /", "override ")
        keys |= {f"{lead}{group}": one for lead in leads}
    definitions["choice"] = {
        "type": "object",
        "properties": keys | {"optional tuned": {"type": "string"}},
        "patternProperties": {"^override /?hydra/": {"type": "string"}},
        "additionalProperties": False,
        "maxProperties": 1,
    }
    for group in groups:
        definitions[f"defaults.{group}"] = _list([*headers.get(group, {})])
    definitions["defaults"] = _list([*headers.get("experiment", {}), *headers.get("model", {})])
    return definitions


def _list(names: list[str]) -> Schema:
    items = [{"enum": list(dict.fromkeys(["_self_", *names]))}, {"$ref": "#/$defs/choice"}]
    return {"type": "array", "items": {"anyOf": items}}


def _options(group: str, headers: Mapping[str, str]) -> Schema:
    """Return the schema of what a group may be: an option, code if it takes some, or several if it is no section."""
    named = [{"const": name, "description": header} for name, header in headers.items()]
    one = [*named, REFERENCE, *([PATH] if group in CODE else [])]
    several = [] if group in SECTIONS else [{"type": "array", "items": {"anyOf": one}}]
    return {"anyOf": [*one, {"type": "null"}, *several]}


def code_choices(content: Mapping) -> Iterator[tuple[str, str]]:
    """Yield group and dotted path of the code that a config's list of defaults chooses."""
    defaults = content.get("defaults")
    for item in defaults if isinstance(defaults, list) else ():
        for key, word in item.items() if isinstance(item, dict) else ():
            group = str(key).rpartition(" ")[2].removeprefix("/")
            if isinstance(word, str) and is_path(group, word):
                yield group, word
