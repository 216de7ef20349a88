"""Overrides (key=value) and flags of the command line."""

import os
import re
import shlex

PLAIN = re.compile(r"(?=.*[A-Za-z/])(?![\d.]+e[\d+-]+$)[\w./+%-]+", re.ASCII)  # needs no quotes and is not a number

CONFIG_FLAGS = ("config-name", "config-path", "config-dir")  # flags that locate configs

OTHER_KEYS = ("data.", "tracker.")  # in these sections a run may have other keys than the default config


def key_of(override: str) -> str:
    """The key of key=value, without the + or ~ that adds or deletes it."""
    return override.lstrip("+~").split("=")[0]


def quoted(path: str | os.PathLike[str]) -> str:
    """A path quoted as the value of an override, for any characters in it."""
    text = re.sub(r'(\\+)(?="|$)', r"\1\1", str(path).replace("${", "\\${"))  # keep OmegaConf from interpolating
    return '"' + text.replace('"', '\\"') + '"'


def pasteable(key: str, path: str | os.PathLike[str]) -> str:
    """key=path, quoted so that it can be pasted into a shell, for any characters in the path."""
    return f"{key}={path}" if PLAIN.fullmatch(str(path)) else shlex.quote(f"{key}={quoted(path)}")
