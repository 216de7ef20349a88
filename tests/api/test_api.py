"""The Python interface: the bits and texts of the command line; the state of the host program is restored."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from runs import assert_same, dl_run, ended

import dlrun
from dlrun.tasks.supervised import Supervised

SMALL = ["data=digits", "model.hidden=[16]", "trainer.epochs=2", "trainer.device=cpu", "trainer.log_every=0"]


def test_import_is_fast_and_loads_no_torch():
    code = (
        "import time; t = time.process_time(); import dlrun; dlrun.train, dlrun.UserError; "
        "print(time.process_time() - t); import sys; print('torch' in sys.modules, 'hydra' in sys.modules)"
    )
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() for _ in "ab"]
    assert min(float(words[0]) for words in found) < 0.1
    assert found[0][1:] == ["False", "False"]


def test_help_shows_the_function_and_loads_no_torch():
    """dlrun.train is both a package and a function."""
    code = "import pydoc, sys, dlrun; print(pydoc.plain(pydoc.render_doc(dlrun.NAME)), 'torch' in sys.modules)"
    for name, words in {
        "train": ("Train a run and return it.", "*words: str", "y_test: Any = None,", "config_dir: str | "),
        "sweep": ("Run a sweep or a search", "*words: str", "config_dir: "),
        "runs": ("List all runs in a folder", "output_dir: "),
    }.items():
        shown = subprocess.run(
            [sys.executable, "-c", code.replace("NAME", name)], capture_output=True, text=True
        ).stdout
        assert all(word in shown.partition("PACKAGE CONTENTS")[0] for word in words) and shown.split()[-1] == "False"
        assert shown.index(words[0]) < 120, "before the package's own text"


@pytest.mark.thorough
def test_results_equal_those_of_the_command_line_whatever_the_host_program_sets(tmp_path):
    process = dl_run(tmp_path / "log", *SMALL, f"run_dir={tmp_path / 'command'}")
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5), np.random.seed(5)
    drawn = np.random.get_state()[1].tolist()
    before = torch.get_rng_state(), list(sys.argv), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        with torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"):
            run = dlrun.train(*SMALL[:2], {"trainer": {"epochs": 2, "device": "cpu", "log_every": 0}}, "run_dir=python")
            assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled()
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.random.get_state()[1].tolist() == drawn
    assert torch.equal(torch.get_rng_state(), before[0]) and sys.argv == before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before[2]
    assert ended(process) == 0, (tmp_path / "log").read_text()
    assert_same(tmp_path / "command", run.folder)
    assert dlrun.load(tmp_path / "command").evaluate() == run.evaluate("test")


def test_errors_read_as_on_the_command_line(tmp_path):
    for words in (
        ["model=mpl"],
        ["trainer.epochs=0"],
        ["trainer.epoch=3"],
        ["data=moons", "model=lenet"],
        ["sweep.jobs=2"],
    ):
        process = dl_run(tmp_path / "log", *words)
        with pytest.raises(dlrun.UserError) as error:
            dlrun.train(*words)
        assert ended(process) == 2
        assert (tmp_path / "log").read_text() == f"dl-run: {error.value}\n"
        (tmp_path / "log").unlink()
    with pytest.raises(dlrun.UserError, match="expected dlrun.resume"):
        dlrun.train("resume=last")
    for words in (["seeds=4"], ["-m", "seed=0,1"], [{"seeds": 4}]):
        with pytest.raises(dlrun.UserError, match=r"asks for several runs\n  expected dlrun.sweep"):
            dlrun.train(*words)
    with pytest.raises(dlrun.UserError, match="a flag of the command line"):
        dlrun.train("--json", "model=mlp")
    with pytest.raises(dlrun.UserError, match="mode=time: dlrun.train trains"):
        dlrun.train("mode=time")
    with pytest.raises(dlrun.UserError, match="there is no run under"):
        dlrun.load()
    assert not Path("outputs").exists()


def test_an_interrupt_saves_first_and_the_run_resumes_to_the_bit():
    words = [*SMALL, "trainer.checkpoint_gap=0"]
    whole = dlrun.train(*words, "run_dir=whole")
    learn = Supervised.step

    def step(self, batch, clock):
        if clock.step == 25:
            signal.raise_signal(signal.SIGINT)
        return learn(self, batch, clock)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with patch.object(Supervised, "step", step), pytest.raises(KeyboardInterrupt, match="dlrun.resume"):
            dlrun.train(*words, "run_dir=cut")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    cut = dlrun.load("cut")
    assert cut.status == "stopped" and cut.summary["steps"] == 26
    assert_same(whole.folder, dlrun.resume(cut).folder)


def test_threads_run_one_after_another():
    found = {}

    def train(seed):
        found[seed] = dlrun.train(*SMALL, f"seed={seed}", f"run_dir=thread{seed}")

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(found[1].folder, dlrun.train(*SMALL, "seed=1", "run_dir=alone").folder)
    assert [run.status for run in found.values()] == ["finished"] * 2


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    tour = nbformat.read(Path(__file__).parents[2] / "docs" / "tour.ipynb", as_version=4)
    os.environ.setdefault("PYTHONPATH", str(Path(dlrun.__file__).parents[1]))
    nbclient.NotebookClient(tour, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in tour.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in shown)
