"""The JSON Schema of a value: its JSON type, its range, its choices."""

import json
import typing
from types import NoneType, UnionType

from dlrun.config.named import named_of, pattern_of
from dlrun.config.values import ranges
from dlrun.types import BestOf, Filled, Range

Schema = dict[str, typing.Any]
REFERENCE = {"type": "string", "pattern": r"^.*\$\{|^\?\?\?$"}  # ${data.length}, or ??? for a value to be set


def typed(annotation: object) -> Schema:
    """Return the schema of a plain type: its JSON type, its range, its choices."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated and (named := named_of(annotation)):
        word = {"type": "string", "pattern": pattern_of(named)}
        return {"anyOf": [word, {"type": "object", "properties": {"_target_": word}, "required": ["_target_"]}]}
    if origin is typing.Annotated:
        schema = typed(args[0])
        for limit in ranges(args):
            schema |= _limits(limit)
        return schema
    if origin in (typing.Union, UnionType):
        return {"anyOf": [typed(option) for option in args]}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is list or origin is tuple and args[-1:] == (...,):
        return {"type": "array", "items": or_reference(typed(args[0]))}
    if origin is tuple:
        items = [or_reference(typed(each)) for each in args]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(args)}
    if origin is dict:
        return {"type": "object", "additionalProperties": or_reference(typed(args[1]))}
    kinds = {int: "integer", float: "number", bool: "boolean", str: "string", NoneType: "null"}
    return {"type": kinds[annotation]} if annotation in kinds else {}


def _limits(limit: Range | Filled | BestOf) -> Schema:
    if isinstance(limit, BestOf):
        return {"pattern": "^best[1-9][0-9]*$"}
    if isinstance(limit, Filled):
        return {"pattern": r"\S"}
    low = {"exclusiveMinimum" if limit.open_low else "minimum": limit.low}
    high = {"exclusiveMaximum" if limit.open_high else "maximum": limit.high}
    return {key: value for key, value in (low | high).items() if abs(value) < float("inf")}


def or_reference(value: Schema) -> Schema:
    """Return the schema of a value that another key may hold."""
    if not value or "$ref" in value:
        return {"anyOf": [value, REFERENCE]} if value else {}
    return {"anyOf": [*(value["anyOf"] if value.keys() == {"anyOf"} else [value]), REFERENCE]}


def merged(values: list[Schema]) -> Schema:
    """Return a schema that accepts all values that any of these accepts."""
    texts = list(dict.fromkeys(json.dumps(value) for value in values))
    schemas = [json.loads(text) for text in texts]
    if len(schemas) == 1:
        return schemas[0]
    notes = dict.fromkeys(value["description"] for value in schemas if "description" in value)
    return {"anyOf": schemas, **({"description": "\n".join(notes)} if notes else {})}
