"""Run folders: made exclusively, found again, read and written whole. No torch here."""

import json
import os
from datetime import datetime
from pathlib import Path

from dlrun.errors import UserError


def new_folder(base: Path, name: str) -> Path:
    """A folder of its own under `base`/<date>, made exclusively: two runs in one second get two."""
    now = datetime.now()
    parent = base / now.strftime("%Y-%m-%d")
    for attempt in range(1, 1000):
        folder = parent / (now.strftime("%H-%M-%S") + f"_{name}" + (f"_{attempt}" if attempt > 1 else ""))
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not parent.is_dir():
                raise UserError(f"output_dir={base}: there is a file where the folder {parent} should be") from None
        except OSError as error:
            raise UserError(
                f"cannot make the run's folder {folder}: {error.strerror}\n"
                "  expected a folder that can be written to; choose another with output_dir=..."
            ) from None
    raise UserError(f"a thousand runs named {name} in one second under {parent}: choose another output_dir")


def claim_folder(folder: Path) -> Path:
    """Make the folder that was asked for by run_dir=. Raises UserError where a run is in it already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run_dir={folder}: cannot make it: {error.strerror}") from None
    if (folder / ".hydra").exists() or (folder / "metrics.jsonl").exists():
        raise UserError(f"run_dir={folder} holds a run already: go on with it by resume={folder}, or choose another folder")
    return folder


def find_run(which: str, output_dir: str) -> Path:
    """The folder of a run; `last` is the one that was started last. Raises UserError where there is none."""
    if which != "last":
        folder = Path(which)
        if (folder / ".hydra" / "config.yaml").is_file():
            return folder
        missing = "is not the folder of a run (it has no .hydra/config.yaml)" if folder.exists() else "does not exist"
        raise UserError(f"resume={which}: this folder {missing}\n  expected a run's folder, as dl-run prints it, or resume=last")
    configs = [p for pattern in ("*/*", "*/*/*") for p in Path(output_dir).glob(f"{pattern}/.hydra/config.yaml")]
    if not configs:
        raise UserError(f"resume=last: there is no run under {Path(output_dir).resolve()}\n  expected one; output_dir=... looks elsewhere")
    return max(configs, key=lambda p: (p.parent / "overrides.yaml").stat().st_mtime).parent.parent


def read_summary(folder: Path) -> dict:
    """summary.json, or nothing where the run did not come to write it."""
    try:
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_whole(path: Path, text: str) -> None:
    """Replace a small file at once: readers see the old text or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
