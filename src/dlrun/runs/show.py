"""Show a run's facts and results, from its folder alone and in any state. No torch here."""

import shlex
from pathlib import Path

from dlrun.errors import UserError, counted
from dlrun.output.console import number, table
from dlrun.output.folders import STARTED, read_summary
from dlrun.output.provenance import CHANGES, ENVIRONMENT
from dlrun.output.rows import epoch_rows
from dlrun.paths import read_whole
from dlrun.runs.listing import status

GROUPS = ("data", "model", "task", "optimizer", "schedule", "experiment")


def show(folder: Path) -> str:
    """Return the text of `dl-runs show`: facts, command line, last epochs, results, files."""
    summary = read_summary(folder)
    blocks = ["\n".join(_facts(folder, summary)), _epochs(folder), _results(summary), "\n".join(_files(folder))]
    return "\n\n".join(block for block in blocks if block)


def show_config(folder: Path) -> str:
    """Return the run's config as it is saved."""
    path = folder / ".hydra" / "config.yaml"
    try:
        return read_whole(path).decode().rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}\n  expected the config as dl-run wrote it") from None


def _facts(folder: Path, summary: dict) -> list[str]:
    versions = summary.get("versions") if isinstance(summary.get("versions"), dict) else {}
    facts = {"run": str(folder), "status": status(folder, summary)}
    facts |= {name: summary[name] for name in GROUPS if summary.get(name)}
    facts |= {name: summary[name] for name in ("seed", "device", "precision") if summary.get(name) is not None}
    if isinstance(summary.get("parameters"), int):
        facts["parameters"] = f"{summary['parameters']:,}"
    if versions:
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    if summary.get("git"):
        facts["commit"] = summary["git"]
    for each in changes(summary):
        facts[f"from step {each['step']}"] = f"{each['key']}={each['to']}, before {each['from']}: another run"
    if command := command_line(folder):
        facts["command"] = command
    width = max(map(len, facts))
    return [f"{name:{width}}  {value}" for name, value in facts.items()]


def changes(summary: dict) -> list[dict]:
    """List the changes by resumes that change the bits: step, key, from, to."""
    listed = summary.get("changes")
    entries = listed if isinstance(listed, list) else []
    return [each for each in entries if isinstance(each, dict) and {"step", "key", "from", "to"} <= each.keys()]


def command_line(folder: Path) -> str:
    """Return the command that starts such a run, without run_dir. Empty if it is unknown."""
    import yaml

    from dlrun.config.untrusted import read_yaml

    try:
        overrides = yaml.safe_load(read_yaml(folder / STARTED))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    if not isinstance(overrides, list):
        return ""
    return shlex.join(["dl-run", *(str(each) for each in overrides if not str(each).startswith("run_dir="))])


def _epochs(folder: Path, last: int = 5) -> str:
    rows = epoch_rows(folder)[-last:]
    names = list(dict.fromkeys(key for row in rows for key in row if key.startswith(("train/", "val/"))))
    if not names:
        return ""
    values = [[number(row[name]) if name in row else "-" for name in names] for row in rows]
    return table([["epoch", *names], *([str(row["epoch"]), *v] for row, v in zip(rows, values, strict=True))])


def _results(summary: dict) -> str:
    best, test = summary.get("best"), summary.get("test")
    lines = []
    if isinstance(best, dict):
        value = best.get("value")
        value = number(value) if isinstance(value, int | float) else "-"
        lines.append(f"best {best.get('metric')} {value} in epoch {best.get('epoch')}")
    if isinstance(test, dict):
        metrics = {name: value for name, value in test.items() if isinstance(value, int | float)}
        lines += [f"{name} {value!r}" for name, value in metrics.items()]
    if isinstance(summary.get("steps"), int) and isinstance(summary.get("seconds"), int | float):
        stop = f", stopped by {summary['stopped_by']}" if summary.get("stopped_by") not in (None, "finished") else ""
        lines.append(f"{counted(summary['steps'], 'step')} in {summary['seconds']:.1f} s{stop}")
    return "\n".join(lines)


def _files(folder: Path) -> list[str]:
    paths = [folder / name for name in (ENVIRONMENT, CHANGES)]
    paths += sorted(path for name in ("checkpoints", "plots", "export") for path in (folder / name).glob("*.*"))
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in paths if path.is_file()}
    width = max(map(len, sizes), default=0)
    return [f"{name:{width}}  {size / 1e3:>9,.1f} kB" for name, size in sizes.items()]
