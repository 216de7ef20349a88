"""Files that are written whole or not at all."""

import os

import pytest
from runs import disk_full

from dlrun.output.written import write_whole


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError):
        write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
