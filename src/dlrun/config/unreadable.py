"""What to write instead of an override that Hydra cannot read."""

import re
import shlex

from dlrun.errors import listed, nearest

FUNCTIONS = {  # of Hydra's values, each with an example
    "choice": "choice(1,2)",
    "range": "range(0,10,2)",
    "interval": "interval(0.1,0.5)",
    "glob": "glob(res*)",
    "sort": "sort(3,1)",
    "shuffle": "shuffle(1,2,3)",
    "tag": "tag(log,interval(1e-4,1e-1))",
    "int": "int(3.0)",
    "float": "float(3)",
    "str": "str(3)",
    "bool": "bool(1)",
}


def unreadable(override: str) -> str:
    """Say how an override that cannot be read is written."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return f"cannot read {override!r}\n  expected key=value, such as trainer.epochs=5"
    if match := re.match(r"(\w+)\(", value):
        return f"cannot read {override!r}: {_misused(match[1], value)}"
    if override.count("${") > 1:
        in_quotes = shlex.quote(f'{key}="{value}"')
        return (
            f"cannot read the value in {override!r}\n"
            f"  expected quotes around a value with one ${{...}} in another: {in_quotes}"
        )
    if (plain := re.sub(r"([{,]\s*)([\"'])([^\"']*)\2(?=\s*:)", r"\1\3", value)) != value:
        written = shlex.quote(f"{key.lstrip('+')}={plain}")
        return f"{override.lstrip('+')}: names in {{}} are written without quotes\n  expected {written}"
    if re.fullmatch(r"[^\w\s\"'\\$(){}\[\]]+", value):  # signs only, such as a separator
        in_quotes = shlex.quote(f'{key}="{value}"')
        return (
            f"cannot read the value in {override!r}\n  expected quotes around it, and others for the shell: {in_quotes}"
        )
    return (
        f"cannot read the value in {override!r}\n"
        "  expected a number, a word, a list such as 'model.hidden=[64,32]', or quoted text: 'init=\"my, run\"'\n"
        "  (the outer quotes are for the shell)"
    )


def _misused(name: str, value: str) -> str:
    """Describe the error of a value that calls one of Hydra's functions."""
    if name not in FUNCTIONS:
        return f"there is no function {name!r}{nearest(name, FUNCTIONS)}\n" + listed(
            "  expected one of: ", [*FUNCTIONS], 4
        )
    if re.search(r"\bnull\b", value):
        return f"{name} takes no null\n  expected the values in the order of the jobs: null,3; or {FUNCTIONS[name]}"
    return f"{name} does not take these values\n  expected {name} as in {FUNCTIONS[name]}"
