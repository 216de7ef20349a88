"""Composing a config: once, also from the user's own files, with errors that name file and line."""

import re

import pytest

from dlrun import cli
from dlrun.config.loader import Loader


def test_a_missing_group_is_named_with_its_options(dl_run, tmp_path):
    """Hydra leaves the group out when it asks for the mode."""
    text = (cli.CONFIGS / "config.yaml").read_text()
    assert "schedule: constant" in text
    (tmp_path / "mine.yaml").write_text(text.replace("schedule: constant", "schedule: ???"))
    mine = ["--config-dir", str(tmp_path), "--config-name=mine", "mode=summary"]
    code, _, err = dl_run(*mine)
    assert code == 2 and "You must specify 'schedule', e.g, schedule=<OPTION>\n" in err and "cosine" in err
    assert dl_run(*mine, "schedule=cosine")[0] == 0


@pytest.mark.parametrize("given", [["mode=summary"], ["mode=summary", "experiment=moons_l2", "hydra.mode=RUN"]])
def test_a_config_is_composed_once(given, dl_run, monkeypatch):
    """Hydra alone composes twice, to see whether an experiment is a sweep."""
    composed, compose = [], Loader._load_configuration_impl

    def counting(self, **keys):
        composed.append(compose(self, **keys))
        return composed[-1]

    monkeypatch.setattr(Loader, "_load_configuration_impl", counting)
    code, out, err = dl_run(*given)
    assert code == 0 and "multiply-adds" in out, err
    (config,) = composed
    assert config.hydra.mode.name == "RUN" and list(config.hydra.overrides.hydra) == ["hydra.mode=RUN"]
    assert list(config.hydra.overrides.task) == [each for each in given if "hydra" not in each]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("trainer.epoch=3", "has no 'epoch'"),
        ("hydra.job.chdir=true", "hydra.job.chdir"),
        ("x=1,2", "several values for one run"),
    ],
)
def test_a_refused_config_is_composed_once(given, message, dl_run, monkeypatch):
    calls, compose = [], Loader._load_configuration_impl
    monkeypatch.setattr(
        Loader, "_load_configuration_impl", lambda self, **keys: [calls.append(keys), compose(self, **keys)][1]
    )
    code, _, err = dl_run(given)
    assert code == 2 and re.search(message, err) and len(calls) == 1


def test_unreadable_configs_are_reported_with_file_and_line(refused, tmp_path):
    models = tmp_path / "mine" / "model"
    models.mkdir(parents=True)
    (models / "broken.yaml").write_text("model:\n  depth: [1, 2\nnext: 3\n")
    (models / "twice.yaml").write_text("depth: 1\ndepth: 2\n")
    (models / "latin.yaml").write_bytes("# caf\xe9\nmodel: {}\n".encode("latin-1"))
    (models / "list.yaml").write_text("- 1\n- 2\n")
    (models / "dangling.yaml").write_text("# @package _global_\ndefaults:\n  - override /task: nothing\n")

    def text(name):
        return refused("--config-dir", "mine", f"model={name}", left=["mine"])

    assert re.search(r"broken.yaml, line 3: .*expected ',' or ']'.*\n  expected YAML", text("broken"))  # two parsers
    assert "twice.yaml, line 2: found duplicate key depth" in text("twice")
    assert "latin.yaml: it is not UTF-8 text\n  save it as UTF-8" in text("latin")
    assert "model=[1, 2]: expected a mapping with a _target_" in text("list")
    assert "task=nothing: no such option" in text("dangling")
    assert "expected one of: a2c, " in text("nothing")
