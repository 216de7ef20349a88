"""scripts/figures: what it refuses, how it uses the runs that are there, and that small images keep their colours."""

import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "scripts" / "figures"


def load():
    """The script as a module."""
    loader = SourceFileLoader("figures", str(SCRIPT))
    module = module_from_spec(spec_from_loader("figures", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """The script as a module, whose runs are in tmp_path; its commands are recorded instead of run."""
    module = load()
    module.called = []
    monkeypatch.setattr(module, "RUNS", tmp_path)
    monkeypatch.setattr(module, "module", lambda *words: module.called.append(words))
    return module


def run_folder(folder, status="finished", seed=0):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"status": status, "seed": seed}))
    return folder


def sweep_folder(tmp_path, *statuses):
    """A sweep of two seeds, of which the second is that of every other job."""
    folder = tmp_path / "xor" / "2026-01-01" / "10-00-00_sweep"
    for k, status in enumerate(statuses):
        run_folder(folder / str(k), status, seed=k % 2)
    (folder / "sweep.json").write_text("{}")
    (folder / "results.json").write_text(json.dumps({"jobs": [{"status": status} for status in statuses]}))
    return folder


def test_an_unknown_name_is_refused_with_the_known_ones():
    done = subprocess.run([sys.executable, SCRIPT, "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no row of docs/course.md links to nonsense" in done.stderr
    assert "himmelblau" in done.stderr and "Traceback" not in done.stderr


def test_a_failed_command_is_named_without_a_traceback():
    module = load()
    with pytest.raises(SystemExit, match="failed: python -m dlrun model=lenett"):
        module.module("dlrun", "model=lenett")


def test_a_finished_run_is_used(figures, tmp_path):
    folder = run_folder(tmp_path / "xor" / "2026-01-01" / "10-00-00_mlp_gates")
    assert figures.run("xor", "experiment=xor") == [folder] and not figures.called


def test_a_finished_sweep_gives_the_runs_of_its_first_seed(figures, tmp_path):
    folder = sweep_folder(tmp_path, "finished", "finished", "finished", "finished")
    assert figures.run("xor", "experiment=xor") == [folder / "0", folder / "2"] and not figures.called


def test_an_interrupted_sweep_is_resumed_and_never_drawn(figures, tmp_path):
    folder = sweep_folder(tmp_path, "finished", "stopped")
    with pytest.raises(SystemExit, match="is not finished"):
        figures.run("xor", "experiment=xor")
    assert figures.called == [("dlrun", "-m", f"sweep.resume={folder}")]


def test_an_interrupted_run_is_resumed(figures, tmp_path):
    folder = run_folder(tmp_path / "xor" / "2026-01-01" / "10-00-00_mlp_gates", "stopped")
    with pytest.raises(SystemExit, match="is not finished"):
        figures.run("xor", "experiment=xor")
    assert figures.called == [("dlrun", f"resume={folder}")]


def test_a_plot_that_is_not_there_is_named(figures, tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "loss.png").touch()
    with pytest.raises(SystemExit, match="no plot acc; expected one of: loss"):
        figures.drawn(tmp_path, "acc")


def test_an_image_without_colour_is_saved_in_grey(figures, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (64, 64, 1)).repeat(3, 2).astype(np.uint8)
    figures.save(Image.fromarray(grey), tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "L" and (np.asarray(image) == grey[..., 0]).all()


def test_a_large_image_is_made_smaller_and_keeps_its_colours(figures, tmp_path):
    """Noise around an orange patch, a grey one and many hues: a palette of few colours makes them brown or green."""
    rng = np.random.default_rng(0)
    hues = Image.fromarray(rng.integers(50, 206, (9, 12, 3)).astype(np.uint8)).resize(
        (480, 310), Image.Resampling.BICUBIC
    )
    pixels = np.clip(np.asarray(hues) + rng.normal(0, 20, (310, 480, 1)), 0, 255)
    pixels[:100, :100], pixels[:100, 100:200] = (255, 127, 14), (128, 128, 128)
    whole = Image.fromarray(pixels.astype(np.uint8))
    figures.save(whole, tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:
        assert (tmp_path / "large.png").stat().st_size <= figures.MOST and image.width < 480
        assert len(image.getcolors()) >= 100
        blocks = [
            np.asarray(each.convert("RGB").resize((9, 6), Image.Resampling.BOX)).astype(int) for each in (image, whole)
        ]
    assert abs(blocks[0] - blocks[1]).max() <= 8
