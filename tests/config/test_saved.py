"""A run's saved config: values from the environment are saved; the config of a stranger's run reads none."""

import shutil

from omegaconf import OmegaConf
from runs import copy_config


def test_values_from_the_environment_are_parsed_like_typed_ones(dl_run, tmp_path, monkeypatch):
    monkeypatch.setenv("N", "1")
    monkeypatch.setenv("WIDTHS", "[4]")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    given = ["trainer.epochs=${oc.env:N}", "model.hidden=${oc.env:WIDTHS}", "data.folds=3"]
    code, _, err = dl_run(*given, "data.fold=${oc.env:SLURM_ARRAY_TASK_ID}", "seed=${data.fold}", "run_dir=run")
    assert code == 0, err
    kept = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    assert (kept.trainer.epochs, kept.model.hidden, kept.data.fold, kept.seed) == (1, [4], 2, 2)


def test_errors_show_values_from_the_environment(refused, monkeypatch):
    monkeypatch.setenv("N", "two")
    assert "trainer.epochs=two: expected an integer" in refused("trainer.epochs=${oc.env:N}")
    monkeypatch.setenv("N", "2.5")
    assert "data.fold=2.5: expected an integer" in refused("data.fold=${oc.env:N}")


def test_the_config_of_a_strangers_run_does_not_read_the_environment(refused, finished, tmp_path, monkeypatch):
    """It could send them to a server of its author."""
    monkeypatch.setenv("TOKEN", "secret")
    for call in ("${oc.env:TOKEN}", "${oc.decode:${oc.env:TOKEN}}", "${${seed}:x}", "${oc.env:DL_RUN_DATA_DIR,x}"):
        folder = copy_config(finished, tmp_path / f"run{len(call)}", "output_dir: outputs", f"output_dir: {call}")
        text = refused(f"resume={folder}", left=[folder.name])
        assert f"output_dir={call} in {folder}" in text and "secret" not in text
        shutil.rmtree(folder)


def test_values_from_the_environment_are_saved(dl_run, tmp_path, monkeypatch):
    monkeypatch.setenv("SIZE", "0.5")
    assert dl_run("output_dir=${oc.env:SIZE}", "trainer.epochs=1", "run_dir=run")[0] == 0
    text = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "output_dir: '0.5'\n" in text and "\ndata_dir: ${oc.env:DL_RUN_DATA_DIR," in text
    assert dl_run("resume=run", "trainer.epochs=2")[0] == 0
