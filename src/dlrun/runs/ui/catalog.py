"""The rows of all runs for the page, read lazily and again only where a file changed. No torch here."""

import hashlib
import os
import threading
import time
from pathlib import Path

from dlrun.errors import UserError
from dlrun.output.as_json import finite
from dlrun.output.folders import STARTED, all_runs
from dlrun.runs.listing import FACTS
from dlrun.runs.live import Folders, LiveRun

CHUNK = 250  # summaries that one request reads at most: 50 ms
ALL_EVERY = 10.0  # seconds between two looks at runs that do not run: one of them may be resumed
NOT_NOW = 0.5  # seconds for which a run that was read is not checked again


class Catalog:
    """The runs under a folder. Every change of a row gets a new version, so that a page asks for changes only."""

    def __init__(self, base: Path) -> None:
        self.base, self.folders, self.lock = base, Folders(lambda: all_runs(base)), threading.Lock()
        self.runs: dict[str, LiveRun] = {}  # by id
        self.rows: dict[str, dict] = {}  # of the runs that have been read
        self.versions: dict[str, int] = {}  # also of runs that are gone
        self.sweeps: dict[str, Path] = {}
        self.version, self.listed, self.looked, self.read_at = 0, list[Path](), 0.0, 0.0

    def changes(self, since: int) -> dict:
        """Return the rows that changed after a version, the ids of runs that are gone, and the present version.

        more: whether there are runs that have not been read yet.
        """
        with self.lock:
            if time.monotonic() - self.read_at > NOT_NOW or len(self.rows) < len(self.runs):
                self._read()
            changed = [key for key, version in self.versions.items() if version > since]
            return {
                "version": self.version,
                "more": len(self.rows) < len(self.runs),
                "total": len(self.runs),
                "base": str(self.base),
                "runs": [self.rows[key] for key in changed if key in self.rows],
                "gone": [key for key in changed if key not in self.rows],
                "sweeps": [{"id": key, "name": self._name(folder)} for key, folder in self.sweeps.items()],
            }

    def run(self, key: str) -> LiveRun:
        """Return a run that was listed, with its facts. Raises UserError for any other id."""
        with self.lock:
            if not self.runs:
                self._read()
            if key not in self.runs:
                raise UserError(f"there is no run {key!r}: expected an id that /api/runs lists")
            run = self.runs[key]
            if key not in self.rows:
                run.read_facts()
            return run

    def sweep(self, key: str) -> Path:
        """Return the folder of a sweep that was listed. Raises UserError for any other id."""
        with self.lock:
            if not self.runs:
                self._read()
            if key not in self.sweeps:
                raise UserError(f"there is no sweep {key!r}: expected an id that /api/runs lists")
            return self.sweeps[key]

    def _read(self) -> None:
        """List the folders again if it is due, and read the summaries that are new or changed."""
        now, self.read_at = time.monotonic(), time.monotonic()
        folders = self.folders()
        if folders is not self.listed:
            self._list(folders)
        is_full, unread = now - self.looked > ALL_EVERY, 0
        self.looked = now if is_full else self.looked
        for key, run in reversed(self.runs.items()):
            is_new = key not in self.rows
            unread += is_new
            if unread > CHUNK or not (is_new or is_full or run.is_running):
                continue
            was_running = run.is_running
            has_changed = run.read_facts()
            if run.is_running or was_running:
                run.read_plan()
                has_changed |= run.read_rows()
            if has_changed or is_new:
                self._set(key, self._row(key, run))

    def _list(self, folders: list[Path]) -> None:
        self.listed, known = folders, self.runs
        by_key = {identify(folder): folder for folder in folders}
        self.runs = {key: known.get(key) or LiveRun(folder) for key, folder in by_key.items()}
        for key in self.rows.keys() - self.runs.keys():
            self._set(key, None)
        parents = dict.fromkeys(folder.parent for folder in folders if folder.name.isdigit())
        sweeps = [parent for parent in parents if os.path.isfile(parent / "sweep.json")]
        self.sweeps = {identify(folder): folder for folder in sweeps}

    def _set(self, key: str, row: dict | None) -> None:
        self.version += 1
        self.versions[key] = self.version
        if row is None:
            del self.rows[key]
        else:
            self.rows[key] = row

    def _row(self, key: str, run: LiveRun) -> dict:
        facts, parent = run.facts, identify(run.folder.parent)
        try:
            started = os.stat(run.folder / STARTED).st_mtime
        except OSError:
            started = 0.0
        row = {
            "id": key,
            "name": self._name(run.folder),
            "sweep": parent if parent in self.sweeps else None,
            "started": started,
            **{name: facts[name] for name in (*FACTS, "best", "test", "seconds", "metrics")},
            "bestMetric": facts["shown"][0] or run.goal or "",
            "testMetric": facts["shown"][1],
            "goal": run.goal,
            "epoch": run.epochs_done if run.epochs or run.steps else run.summary.get("epochs"),
            "planned": run.planned,
            "left": run.seconds_left(),
        }
        return finite(row)

    def _name(self, folder: Path) -> str:
        return str(folder.relative_to(self.base)) if folder.is_relative_to(self.base) else str(folder)


def identify(folder: Path) -> str:
    """Return a short id of a folder for addresses, which then hold no path."""
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
