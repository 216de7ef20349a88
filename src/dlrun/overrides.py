"""Overrides, key=value, and flags, as the command line has them."""

import argparse
import re
import shlex

PLAIN = re.compile(r"(?=.*[A-Za-z/])(?![\d.]+e[\d+-]+$)[\w./+%-]+", re.ASCII)  # what needs no quotes, and is no number

PLACES = ("config-name", "config-path", "config-dir")  # flags


def key_of(override: str) -> str:
    """The key of key=value, without what says to add or delete it."""
    return override.lstrip("+~").split("=")[0]


def quoted(path: object) -> str:
    """A path as an override's value, whatever letters are in it."""
    text = re.sub(r'(\\+)(?="|$)', r"\1\1", str(path).replace("${", "\\${"))  # no interpolation
    return '"' + text.replace('"', '\\"') + '"'


def pasteable(key: str, path: object) -> str:
    """key=path as it can be pasted into a shell, whatever letters are in it."""
    return f"{key}={path}" if PLAIN.fullmatch(str(path)) else shlex.quote(f"{key}={quoted(path)}")


def passed_on(flags: argparse.Namespace) -> list[str]:
    """The flags that say where configs are, as they are written."""
    return [f"--{name}={value}" for name in PLACES if (value := getattr(flags, name.replace("-", "_")))]
