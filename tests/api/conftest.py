"""All tests of the Python interface run in an empty folder, without plots."""

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)  # drawing takes most of the time
