"""The commit in the working folder, asked of git without running what the folder names."""

import os
import subprocess


def git_commit() -> str | None:
    """The commit checked out in the working folder, with a "+" if there are uncommitted changes; None without git.

    The folder may be untrusted and git runs programs that .git/config names, so hooks and fsmonitor are disabled. If
    it defines filters, submodules or another work tree, the check for changes (which would run them) is left out.
    """
    safe = ["git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
    unsafe = r"^(filter\..*\.(clean|smudge|process)|submodule\..*|core\.worktree)$"
    programs = _stdout_of([*safe, "config", "--local", "--includes", "--name-only", "--get-regexp", unsafe])
    dirty = [] if programs else ["--dirty=+"]
    return _stdout_of([*safe, "describe", "--always", "--abbrev=40", *dirty, "--exclude=*"])


def _stdout_of(command: list[str]) -> str | None:
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None
