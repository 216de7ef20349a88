"""Overrides that are printed can be pasted."""

import shlex
from pathlib import Path

import pytest

from dlrun.overrides import pasteable, quoted


@pytest.mark.thorough(but=["l'x", "a,b", "${seed}"])
@pytest.mark.parametrize("name", ["a b", "a,b", "a=b", "\u00fc", "a(b", 'q"x', "1e3", "$HOME", "l'x", "${seed}", "b\\"])
def test_the_printed_resume_command_can_be_pasted(name, dl_run):
    """It passes through a shell and Hydra's grammar."""
    assert dl_run(f"run_dir={quoted(name)}", "trainer.epochs=1")[0] == 0
    pasted = shlex.split(pasteable("resume", name))
    assert dl_run(*pasted, "trainer.epochs=2")[0] == 0
    assert (Path(name) / "checkpoints").is_dir()
