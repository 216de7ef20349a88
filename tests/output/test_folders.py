"""Where a run is written: output_dir and run_dir, and which folders are refused."""

import os

import pytest


def test_a_file_in_place_of_the_output_folder_is_refused(refused, tmp_path):
    (tmp_path / "taken").write_text("")
    for base in ("taken", "taken/deeper"):
        text = refused(f"output_dir={base}", left=["taken"])
        assert text.startswith(f"output_dir={base}: ") and "expected a writable folder" in text
    assert "run_dir=taken: " in refused("run_dir=taken", left=["taken"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_folder_is_refused(refused, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    text = refused("output_dir=closed", left=["closed"])
    assert "Permission denied" in text and "choose another with output_dir=..." in text


def test_a_run_dir_with_a_run_is_refused(refused, finished):
    text = refused(f"run_dir={finished}")
    assert text.startswith(f"run_dir={finished} already holds a run: resume it with dl-run resume={finished}")


def test_a_run_dir_with_files_is_refused_and_an_empty_one_accepted(refused, dl_run, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "config.yaml").write_text("mine")
    text = refused("run_dir=papers", left=["papers"])
    assert text.startswith("run_dir=papers already holds files: config.yaml\n  expected an empty or new folder")
    assert [p.name for p in (tmp_path / "papers").iterdir()] == ["config.yaml"]
    (tmp_path / "empty").mkdir()
    assert dl_run("run_dir=empty", "trainer.epochs=1")[0] == 0
