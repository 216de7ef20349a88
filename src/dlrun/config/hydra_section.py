"""The allowed keys and values of a config's `hydra` section. All others are refused, since the section can name code.

Overrides are checked before the config is composed, then the section as the files compose it, then the final values.
No Hydra here.
"""

from collections.abc import Iterable

from dlrun.errors import UserError, nearest

NONE = {"version": 1, "root": None, "disable_existing_loggers": False}
LAUNCHERS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "basic",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "submitit_local",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "submitit_slurm",
}
SWEEPER = "hydra_plugins.dlrun_sweeper.sweeper.JobSweeper"
ADDITIONAL = {"begin", "dependency", "exclusive", "hint", "licenses", "mail-type", "mail-user", "nice", "reservation"}
FREE = ("mode", "searchpath", "launcher", "sweeper.params")  # may be set; their values are checked
GROUPS = {"launcher": LAUNCHERS.values(), "sweeper": ["dlrun"], "hydra_logging": ["none"], "job_logging": ["none"]}
SECTION = {  # the defaults of all other keys
    "run": {"dir": "."},
    "sweep": {"dir": "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}", "subdir": "${hydra.job.num}"},
    "hydra_logging": NONE,
    "job_logging": NONE,
    "env": {},
    "callbacks": {},
    "output_subdir": None,
    "verbose": False,
    "overrides": {"hydra": [], "task": []},
    "job": {
        "chdir": None,
        **dict.fromkeys(("name", "override_dirname", "id", "num", "config_name"), "???"),
        "env_set": {},
        "env_copy": [],
        "config": {"override_dirname": {"kv_sep": "=", "item_sep": ",", "exclude_keys": []}},
    },
    "runtime": {
        **dict.fromkeys(("version", "version_base", "cwd", "config_sources", "output_dir"), "???"),
        "choices": {},
    },
}
INSTEAD = {
    "run": "run_dir=FOLDER (in a sweep output_dir=FOLDER)",
    "sweep": "output_dir=FOLDER: the sweep creates <date>/<time>_sweep/<job> in it",
    "sweeper": "sweep=grid or sweep=optuna, which choose the jobs",
    "hydra_logging": "hydra/hydra_logging=none (run.log is written)",
    "job_logging": "hydra/job_logging=none (run.log is written)",
    "env": "variables set in the shell: NAME=value dl-run ...",
    "job.env_set": "variables set in the shell: NAME=value dl-run ...",
    "job.env_copy": "variables set in the shell: NAME=value dl-run ...",
    "job.chdir": "dl-run to be started in that folder",
    "job.name": "run_dir=FOLDER for a run's name, hydra.launcher.name for a cluster's",
    "job": "no such key: dl-run numbers and names the jobs",
    "runtime": "no such key: Hydra writes it",
    "overrides": "no such key: Hydra writes it",
    "output_subdir": "run_dir=FOLDER: the config is in its .hydra",
    "callbacks": "no such key: a config must not run code",
    "verbose": "no such key: run.log has everything",
    "help": "dl-run --help",
    "hydra_help": "dl-run --help",
    "output": "run_dir=FOLDER or output_dir=FOLDER",
    "launcher": "one of " + ", ".join(LAUNCHERS.values()),
}


def check_overrides(overrides: list[tuple[str, object, str]]) -> None:
    """Raise UserError if the command line sets a key of Hydra's that it may not. overrides: (key, value, text)."""
    problems = []
    for key, value, text in overrides:
        group, is_group, option = key.partition("@")[0].partition("/")
        path = option if is_group else group.partition(".")[2]
        if is_group and value in GROUPS.get(option, ()) and "@" not in key and text[0] not in "~":
            continue
        may = not is_group and text[0] != "~" and any(path == name or path.startswith(f"{name}.") for name in FREE)
        problems += [] if may else [f"{text}: {_instead(path)}"]
    _raise(problems)


def check_files(section: dict, texts: dict) -> None:
    """Raise UserError if config files set other keys than the allowed ones. Interpolations are unresolved.

    texts: Hydra's own help and hydra_help.
    """
    fixed = {key: value for key, value in section.items() if key not in _RULES}
    _raise(_differences(fixed, SECTION | texts, ""))


def check_values(section: dict) -> None:
    """Raise UserError if an allowed key has a value that is not allowed, whatever set it."""
    _raise([line for key, problems_of in _RULES.items() for line in problems_of(section.get(key))])


def check_source(path: object) -> None:
    """Raise UserError unless the source of configs is a folder: pkg://NAME would import NAME."""
    text = str(path).removeprefix("file://")
    if "://" in text:
        raise UserError(
            f"{path}: configs would come from {text.partition('://')[0]}://, which runs code\n  expected a folder"
        )


def _raise(problems: list[str]) -> None:
    if problems:
        many = f"{len(problems)} errors in the config:\n  " if len(problems) > 1 else ""
        raise UserError(many + "\n  ".join(problems))


def _instead(path: str) -> str:
    """Describe the replacement of a key of Hydra's."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        if instead := INSTEAD.get(".".join(parts[:end])):
            return f"dl-run does not support this Hydra key\n    expected {instead}"
    known = sorted({*SECTION, *FREE, "sweeper"})
    return f"hydra has no {parts[0]!r}{nearest(parts[0], known)}\n    expected one of: " + ", ".join(
        f"hydra.{name}" for name in FREE
    )


def _differences(actual: object, expected: object, path: str) -> list[str]:
    if isinstance(actual, dict) and isinstance(expected, dict) and (expected or not actual):
        return [
            line
            for key in dict.fromkeys([*expected, *actual])
            for line in _differences(actual.get(key), expected.get(key), f"{path}.{key}".lstrip("."))
            if key in actual
        ]
    return [] if actual == expected else [f"hydra.{path}={_short(actual)}: {_instead(path)}"]


def _short(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _of_searchpath(paths: Iterable[str] | None) -> list[str]:
    for path in paths or []:
        check_source(path)
    return []


def _of_sweeper(section: object) -> list[str]:
    section = section if isinstance(section, dict) else {}
    if section.get("_target_") != SWEEPER or section.keys() - {"_target_", "params"}:
        return [f"hydra.sweeper={_short(section)}: {_instead('sweeper')}"]
    params = section.get("params") or {}
    # Hydra instantiates the objects in here, including those that an interpolation reaches
    wrong = {k: v for k, v in params.items() if not _is_plain(v)} if isinstance(params, dict) else params
    return [f"hydra.sweeper.params={_short(wrong)}: expected plain values, as on the command line"] if wrong else []


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not isinstance(value, dict) and "${" not in str(value)


def check_launcher(section: dict) -> None:
    """Raise UserError if the launcher's section, with interpolations resolved, has a value that is not allowed."""
    _raise(_of_launcher(section))


def _of_launcher(section: object) -> list[str]:
    section = section if isinstance(section, dict) else {}
    if section.get("_target_") not in LAUNCHERS:
        return [f"hydra.launcher={_short(section)}: {_instead('launcher')}"]
    problems = []
    if section.get("setup"):
        shown = _short(section["setup"])
        problems.append(f"hydra.launcher.setup={shown}: a config must not run commands; run them before dl-run")
    more = section.get("additional_parameters") or {}
    if unknown := sorted(map(str, more.keys() - ADDITIONAL)):
        known = ", ".join(sorted(ADDITIONAL))
        problems.append(f"hydra.launcher.additional_parameters.{unknown[0]}: expected one of: {known}")
    for key, value in [*section.items(), *more.items()]:  # each becomes a line of a shell script
        if isinstance(value, str) and not value.isprintable():
            problems.append(f"hydra.launcher.{key}={value!r}: expected one line of text")
    return problems


_RULES = {
    "searchpath": _of_searchpath,
    "sweeper": _of_sweeper,
    "launcher": _of_launcher,
    "mode": lambda mode: [],  # Hydra checks its type
}
