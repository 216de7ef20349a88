"""The flags of the command line."""

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("trainer.epochs=7", "--cfg", "job", "seed=3", "-p", "trainer"),
        ("--cfg", "job", "-p", "trainer", "trainer.epochs=7"),
    ],
)
def test_flags_may_come_before_or_after_overrides(dl_run, arguments):
    code, out, err = dl_run(*arguments)
    assert (code, err) == (0, "")
    assert "epochs: 7" in out and out.startswith("# @package trainer")
