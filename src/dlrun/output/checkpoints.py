"""The checkpoints of a run: when each is written, which is the newest whole one, and which weights were tested."""

import os
import shutil
import threading
from pathlib import Path

from dlrun.errors import CheckpointError
from dlrun.output.checkpoint import load_of_run, save
from dlrun.output.folders import tested_paths
from dlrun.output.restarts import RESUMED_FROM
from dlrun.output.written import sync_folder


class Checkpoints:
    """A run's checkpoints: `last` and `previous` (the one before it), written by a background thread, and `best`.

    A finished run may have tested_<steps>.ckpt too: the weights that it was tested with, if `best` and `last` hold
    others. They do if a limit cut the epoch of the best weights, or while the run is resumed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.last_is_good = True

    def write(self, last: dict, best: dict | None) -> None:
        """Start writing snapshots. A new best is on the disk before the `last` that refers to it."""
        self.wait()
        self.thread = threading.Thread(target=self._write, args=(last, best), name="checkpoint")
        self.thread.start()

    def _write(self, last: dict, best: dict | None) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            if best is not None:
                save(self.folder / "best.ckpt", best)
            newest = self.folder / "last.ckpt"
            incoming = self.folder / "incoming.ckpt"
            save(incoming, last)
            if newest.exists() and self.last_is_good:
                os.replace(newest, self.folder / "previous.ckpt")
            os.replace(incoming, newest)
            sync_folder(self.folder)
            self.last_is_good = True
        except BaseException as error:  # `wait` raises it in the training thread
            self.error = error

    def keep_epoch(self, state: dict, epoch: int) -> None:
        """Start writing epoch_<n>.ckpt, a snapshot like that of the best epoch."""
        self.wait()
        self.thread = threading.Thread(target=self._keep_epoch, args=(state, epoch), name="checkpoint")
        self.thread.start()

    def _keep_epoch(self, state: dict, epoch: int) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            save(self.folder / f"epoch_{epoch}.ckpt", state)
        except BaseException as error:  # `wait` raises it in the training thread
            self.error = error

    def forget_epochs(self, epochs: set[int], since: int = 0) -> None:
        """Remove the files of all other epochs after `since`."""
        for path in self.folder.glob("epoch_*.ckpt"):
            number = path.stem.removeprefix("epoch_")
            if number.isdecimal() and int(number) > since and int(number) not in epochs:
                path.unlink(missing_ok=True)

    def write_tested(self, best: dict, steps: int) -> None:
        """Write the weights that a run is tested with if a limit cut its last epoch: best.ckpt is of whole epochs."""
        self.wait()
        self.folder.mkdir(exist_ok=True)
        save(self.folder / f"tested_{steps}.ckpt", best)

    def keep_tested(self, summary: dict, test: str) -> None:
        """Copy the weights that a finished run was tested with, since resuming it will replace them."""
        original, copy = tested_paths(self.folder, summary, test)
        if copy.exists() or not original.exists():
            return
        self.forget_tested()
        temporary = copy.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(original, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(original, temporary)
        os.replace(temporary, copy)

    def forget_tested(self, steps: int | None = None) -> None:
        """Remove tested weights, since the run was tested again; keep those of this number of steps."""
        for path in self.folder.glob("tested_*.ckpt"):
            if path.name != f"tested_{steps}.ckpt":
                path.unlink()

    def load(self, name: str, run: str | None) -> dict:
        """Load <name>.ckpt of the run with this id; see `load_of_run`."""
        return load_of_run(self.folder / f"{name}.ckpt", run)

    def wait(self) -> None:
        """Wait until the background thread has written its checkpoint. Raises the thread's error, if any."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def load_last(self, run: str | None = None) -> tuple[dict, str]:
        """Return the newest intact checkpoint of this run, and why it is not `last` ("" if it is).

        `incoming` exists if the run was killed after writing a checkpoint and before renaming it to `last`. Raises
        CheckpointError if there is none.
        """
        failures = []
        paths = [self.folder / f"{name}.ckpt" for name in RESUMED_FROM]
        for path in paths:
            if not path.exists():
                continue
            try:
                state = load_of_run(path, run)
            except CheckpointError as error:
                failures.append(str(error))
                continue
            self.last_is_good = path == paths[0] or not paths[0].exists()
            if path == paths[2] and not failures:
                failures.append(f"the checkpoint {paths[0]} is missing")
            return state, "; ".join(failures)
        if failures:
            raise CheckpointError(
                "no checkpoint of this run can be read:\n  "
                + "\n  ".join(failures)
                + "\n  expected a whole one: start the run again"
            )
        raise CheckpointError(f"{self.folder} holds no checkpoint: the run stopped before it wrote one; start it again")
