"""The flags of the command line."""

import argparse

import pytest

from dlrun.config.flags import args_parser


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


def test_hydras_help_texts_pass_the_check_of_python_3_14(monkeypatch):
    """Hydra's help is a function, not yet a text; other parsers are checked as before."""

    def check(self, action):
        raise ValueError("badly formed help string")

    monkeypatch.setattr(argparse._ActionsContainer, "_check_help", check, raising=False)
    parser = args_parser()
    assert parser.parse_args(["a=1", "--multirun"]).overrides == ["a=1"]
    assert argparse._ActionsContainer._check_help is check
