"""Hydra's own section of a config."""

import pytest


@pytest.mark.parametrize("flags", [(), ("-m",)])
def test_hydras_own_section_runs_no_code(refused, tmp_path, flags):
    call = "{_target_: pathlib.Path.touch, _args_: [{_target_: pathlib.Path, _args_: [hacked]}]}"
    assert "+hydra.callbacks.x={_target_: " in refused(*flags, f"+hydra.callbacks.x={call}")
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    log = "version: 1, handlers: {h: {class: logging.FileHandler, filename: hacked}}"
    config = f"# @package _global_\nhydra:\n  job_logging: {{{log}}}\n"
    (tmp_path / "mine" / "experiment" / "bad.yaml").write_text(config)
    text = refused(*flags, "--config-dir=mine", "experiment=bad", left=["mine"])
    assert "hydra.job_logging.handlers={'h': " in text and "expected hydra/job_logging=none" in text
