"""Run dl-run in a process of its own: for sweeps, and for runs that several processes train."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from dlrun.config.consent import allowed
from dlrun.config.signatures import ALLOWED
from dlrun.errors import UserError
from dlrun.system.python import COMMAND


def run_command(arguments: Sequence[str]) -> Path:
    """Run `dl-run` with these arguments, show what it prints, and return the folder of its run or sweep.

    An interrupt is passed on, so that it saves first. Raises UserError with its message if it was refused or failed, or
    if no job of a sweep finished; KeyboardInterrupt if it was stopped.
    """
    env = os.environ | {
        "DL_RUN_ALLOW": ",".join(sorted(ALLOWED | allowed)),
        "PYTHONPATH": os.pathsep.join([*_folders(allowed), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [sys.executable, *COMMAND, "--json", *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=env, text=True, errors="replace",
            start_new_session=True,  # Ctrl-C reaches it through this process only
        )  # fmt: skip
        is_interrupted = False
        while process.poll() is None:
            try:
                for line in process.stderr or ():
                    sys.stdout.write(line)
                process.wait()
            except KeyboardInterrupt:
                is_interrupted = True
                process.send_signal(signal.SIGINT)
        if process.stderr:
            process.stderr.close()
        out.seek(0)
        lines = out.read().decode(errors="replace").splitlines()
    try:
        ending = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise UserError(f"dl-run ended with exit code {process.returncode} and without a result") from None
    if is_interrupted or ending["exit_code"] > 128:
        raise KeyboardInterrupt(f"stopped; resume {ending['folder']}")
    if ending["error"] or not ending["folder"]:
        raise UserError(ending["error"] or f"dl-run ended with exit code {process.returncode}")
    if ending.get("first_failure") and not ending["jobs"].keys() & {"finished", "pruned"}:
        counts = ", ".join(f"{count} {status}" for status, count in ending["jobs"].items())
        raise UserError(
            f"no job of the sweep finished: {counts}\n  {ending['first_failure']}\n"
            f"  all jobs: dlrun.Sweep({ending['folder']!r}).jobs"
        )
    return Path(ending["folder"])


def _folders(packages: Iterable[str]) -> list[str]:
    """List the folders that hold these packages of this program: a new process does not have its sys.path."""
    folders = []
    for name in sorted({package.partition(".")[0] for package in packages}):
        try:
            spec = find_spec(name)
        except ValueError:  # a module that was made by hand has none
            continue
        if spec and (places := [*(spec.submodule_search_locations or filter(None, [spec.origin]))]):
            folders.append(str(Path(places[0]).absolute().parent))
    installed = ("site-packages", "dist-packages")  # these a new process has, after the standard library
    return [folder for folder in dict.fromkeys(folders) if Path(folder).name not in installed]
