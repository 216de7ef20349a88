"""The provenance of a run's results: its packages, its commit, and the changes since that commit. No torch here."""

import os
import platform
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from dlrun.output.written import write_whole

ENVIRONMENT, CHANGES = "environment.txt", "changes.patch"
MOST = 2**20  # bytes of a patch
SECONDS = 20  # that git may take
SAFE = ["git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
DIFF = [*SAFE, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--ignore-submodules=dirty"]
UNTOLD = "# Changes in the checkout are unknown: git failed, or would have run its filters or entered its submodules"


def write_environment(folder: Path, commit: str = "") -> None:
    """Write environment.txt: Python and all installed packages with their versions, as `pip install -r` reads them.

    commit: that of `git_commit`.
    """
    head = f"# Python {platform.python_version()}, {sys.platform} {platform.machine()}"
    lines = [head, *([UNTOLD] if commit.endswith("?") else []), *packages()]
    write_whole(folder / ENVIRONMENT, "\n".join(lines) + "\n")


def packages() -> list[str]:
    """List the installed packages as NAME==VERSION.

    The names of their folders (NAME-VERSION.dist-info or NAME-VERSION-pyX.Y.egg-info) say both; importlib.metadata
    would read a file for each, which takes 50 times as long.
    """
    versions: dict[str, str] = {}
    for entry in dict.fromkeys(sys.path):
        with suppress(OSError):
            for folder in os.listdir(entry or "."):
                stem, suffix = os.path.splitext(folder)
                name, version, *_ = [*stem.split("-"), ""]
                if suffix in (".dist-info", ".egg-info") and version:
                    versions.setdefault(name.replace("_", "-").lower(), version)  # the first on the path is imported
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def git_commit() -> str | None:
    """The commit checked out in the working folder; None without git.

    It ends in "+" if there are uncommitted changes, and in "?" if that is unknown. The folder may be untrusted, and git
    runs programs that .git/config names, so hooks and fsmonitor are disabled. If it defines filters or another work
    tree, the check for changes is left out, since it would run them. Submodules are not entered, since git would follow
    their own settings there; only their commits are compared.
    """
    commit = _stdout_of([*SAFE, "rev-parse", "--verify", "HEAD"])
    if commit is None:
        return None
    unsafe = r"^(filter\..*\.(clean|smudge|process)|core\.worktree)$"
    named = _run([*SAFE, "config", "--show-scope", "--includes", "--name-only", "--get-regexp", unsafe])
    is_known = named is not None and named.returncode in (0, 1)  # 1: none; the user's own, such as Git LFS, may run
    if named is None or not is_known or re.search(r"^(local|worktree)\s", named.stdout, re.MULTILINE):
        return f"{commit}?"
    changed = _run([*DIFF, "--quiet", "HEAD"])
    if changed is not None and changed.returncode == 1:
        return f"{commit}+"
    staged = _run([*SAFE, "ls-files", "--stage", ":/"])
    if changed is None or changed.returncode or staged is None or staged.returncode:
        return f"{commit}?"
    return f"{commit}?" if re.search(r"^160000 ", staged.stdout, re.MULTILINE) else commit


class ChangesWriter(threading.Thread):
    """Writes changes.patch while the run trains; `git apply` reads it. Only for a commit that `git_commit` marks "+".

    If the changes have more than MOST bytes, a list of the changed files takes their place. Files that git does not
    track are named, without their content.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.cwd = folder, os.getcwd()

    def run(self) -> None:
        """Write the file. The run continues if the patch cannot be made."""
        patch = self._output([*DIFF, "--binary", "HEAD"])
        if len(patch) > MOST:
            names = self._output([*DIFF, "--stat=120", "HEAD"])
            patch = f"The changes have more than {MOST:,} bytes; the changed files are:\n".encode() + names[:MOST]
        new = self._output([*SAFE, "ls-files", "--others", "--exclude-standard", ":/"]).decode("utf-8", "replace")
        lines = [f"# not tracked by git, content not saved: {name}" for name in new[:MOST].splitlines()[:100]]
        if not patch and not lines:  # git is gone, or took too long
            return
        with suppress(OSError):  # the folder was removed, or the disk is full
            write_whole(self.folder / CHANGES, "".join(f"{line}\n" for line in lines).encode() + patch)

    def _output(self, command: list[str]) -> bytes:
        """Return at most MOST + 1 bytes of a command's output."""
        try:
            with subprocess.Popen(
                command, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                timer = threading.Timer(SECONDS, process.kill)
                timer.start()
                try:
                    return process.stdout.read(MOST + 1) if process.stdout else b""
                finally:
                    timer.cancel()
                    process.kill()
        except OSError:
            return b""


def _stdout_of(command: list[str]) -> str | None:
    process = _run(command)
    return process.stdout.strip() or None if process else None


def _run(command: list[str]) -> "subprocess.CompletedProcess[str] | None":
    """Run git. None if there is none, or if it takes too long."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=5, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
