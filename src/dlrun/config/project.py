"""`dl-run.yaml` in the working folder, read only after `dl-run trust`: entering a cloned repository must not run code.

    data_dir: /data                # where data sets are, unless DL_RUN_DATA_DIR is set
    output_dir: runs               # where runs go
    allow: [mynets]                # packages whose code configs may name; found in this folder, too
    config_dirs: [configs]         # folders of config groups

Trust holds for the file as it was: after a change it is asked for again. No torch.
"""

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path

from dlrun.errors import ConfigError, UserError, first_line, nearest
from dlrun.output.terminal import complain
from dlrun.output.written import write_whole
from dlrun.paths import open_plain, read_whole
from dlrun.types import is_text

FILE = "dl-run.yaml"
KEYS = {"data_dir": str, "output_dir": str, "allow": list, "config_dirs": list}
LARGEST = 100_000  # bytes


def project() -> dict:
    """Return the content of the working folder's file if it is trusted, with absolute paths; else {}.

    A file that is not trusted is named once on standard error. Raises UserError if a trusted one is wrong.
    """
    try:
        path = Path.cwd() / FILE
    except OSError:  # the working folder was removed
        return {}
    content = _read(path)
    return {} if content is None else _if_trusted(path, content)


@cache
def _if_trusted(path: Path, content: bytes) -> dict:
    if _trusted().get(str(path)) != _digest(content):
        complain("dl-run", f"{path} is not read, as you have not trusted it: look at it, then run dl-run trust")
        return {}
    keys = _checked(path, content)
    if keys.get("allow") and str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # the packages are expected here
    return keys


def trust() -> str:
    """Trust the working folder's file as it is. Returns a text about its keys, to print."""
    path = Path.cwd() / FILE
    content = _read(path)
    if content is None:
        what = f"cannot read {path}" if os.path.lexists(path) else f"there is no {path}"
        raise UserError(f"trust: {what}\n  expected that file, with keys of: {', '.join(KEYS)}")
    if len(content) > LARGEST:
        raise UserError(f"trust: {path} has more than {LARGEST:,} bytes\n  expected a few lines")
    keys = _checked(path, content)
    store = _store()
    if store is None:
        raise UserError("trust: there is no home folder to note it in\n  expected HOME or XDG_CONFIG_HOME to be set")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_trusted() | {str(path): _digest(content)}, indent=1)
        write_whole(store, text + "\n")
    except OSError as error:
        raise UserError(f"trust: cannot write {store}: {error.strerror}\n  expected a writable folder") from None
    _if_trusted.cache_clear()
    lines = [f"  {key}: {', '.join(value) if isinstance(value, list) else value}" for key, value in keys.items()]
    return "\n".join([f"{path} is trusted as it is now, noted in {store}", *lines])


def trust_command(arguments: list[str]) -> str:
    """Run `dl-run trust`. Returns the text to print."""
    if arguments in (["-h"], ["--help"]):
        return f"dl-run trust: trust the {FILE} in this folder as it is now. It may hold:\n  {', '.join(KEYS)}"
    if arguments:
        raise UserError(f"trust: {arguments[0]}: expected dl-run trust, in the folder of a {FILE}")
    return trust()


def output_dir() -> str:
    """Return the folder in which runs are looked for by default."""
    return project().get("output_dir", "outputs")


def _read(path: Path) -> bytes | None:
    """Return the content, at most one byte more than LARGEST; None if there is no regular file."""
    try:
        with open_plain(path) as file:
            return file.read(LARGEST + 1)
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _store() -> Path | None:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.environ.get("HOME") or "", ".config")
    return Path(base) / "dl-run" / "trusted.json" if os.path.isabs(base) else None


def _trusted() -> dict:
    """Return the digest of each trusted file by its path."""
    store = _store()
    try:
        digests = json.loads(read_whole(store)) if store else {}
    except (OSError, ValueError):
        return {}
    return digests if isinstance(digests, dict) else {}


def _checked(path: Path, content: bytes) -> dict:
    """Read the file's keys. Raises UserError with all that is wrong with it."""
    import yaml

    from dlrun.config.untrusted import require_plain

    try:
        require_plain(text := content.decode(), path.name)
        node = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: {first_line(error)}\n  expected YAML") from None
    if not isinstance(node, dict):
        raise UserError(f"{path}: expected keys of: {', '.join(KEYS)}")
    problems = []
    for key, value in node.items():
        kind = KEYS.get(key) if isinstance(key, str) else None
        texts = value if isinstance(value, list) else [value]
        if kind is None:
            known = ", ".join(KEYS)
            problems.append(f"{path}: there is no key {key!r}{nearest(str(key), KEYS)}\n    expected one of: {known}")
        elif not isinstance(value, kind) or not all(text and is_text(text) for text in texts):
            problems.append(f"{path}: {key}={value!r}: expected {'a list of texts' if kind is list else 'a path'}")
        elif key == "allow" and (wrong := [text for text in texts if not all(map(str.isidentifier, text.split(".")))]):
            problems.append(f"{path}: allow={wrong[0]!r}: expected the name of a package, such as mynets")
        elif key == "config_dirs":
            problems += [
                f"{path}: config_dirs: there is no folder {path.parent / text}"
                for text in texts
                if not (path.parent / os.path.expanduser(text)).is_dir()
            ]
    if problems:
        raise ConfigError(problems)
    for key in node.keys() & {"data_dir", "output_dir"}:
        node[key] = str(path.parent / os.path.expanduser(node[key]))
    if "config_dirs" in node:
        node["config_dirs"] = [str(path.parent / os.path.expanduser(text)) for text in node["config_dirs"]]
    return node
