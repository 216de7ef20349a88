"""The private parts of Hydra and OmegaConf that dl-run uses are there and do what is expected of them."""

import argparse
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dlrun import cli
from dlrun.config import hydra_internals
from dlrun.config.hydra_internals import LoaderBase, Repository, args_parser, search_path
from dlrun.config.loader import Loader

SRC = Path(hydra_internals.__file__).parents[1]


def test_no_other_module_uses_private_parts():
    """A name in a config that Hydra itself writes, such as that of its launcher, is no import."""
    private = ("from hydra._", "import hydra._", "omegaconf._", "from omegaconf import _")
    wrong = [
        f"{path}:{number}: {line.strip()}"
        for path in [*SRC.rglob("*.py"), *(SRC.parent / "hydra_plugins").rglob("*.py")]
        if path.name != "hydra_internals.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(text in line for text in private)
    ]
    assert not wrong, "\n".join(["", *wrong])


def test_the_methods_that_the_loader_changes_are_hydras():
    changed = {"load_configuration", "_process_config_searchpath", "_compose_config_from_defaults_list"}
    assert changed <= vars(Loader).keys() and changed <= vars(LoaderBase).keys()
    assert callable(LoaderBase._load_configuration_impl) and callable(Repository.load_config)


def test_hydra_composes_with_another_loader(monkeypatch):
    import hydra._internal.hydra as hydras

    monkeypatch.setattr(hydras, "ConfigLoaderImpl", LoaderBase)
    monkeypatch.setattr(sys.modules["hydra.main"], "get_args_parser", None)
    hydra_internals.use_loader(Loader)
    assert hydras.ConfigLoaderImpl is Loader
    assert sys.modules["hydra.main"].get_args_parser is args_parser


def test_the_search_path_begins_with_hydras_own_entries():
    providers = [entry.provider for entry in search_path(str(cli.CONFIGS)).get_path()]
    assert providers[:2] == ["hydra", "main"]


@pytest.mark.parametrize("argument", ["a=choice(null,1)", "a=shuffle(null,1)"])
def test_null_is_a_choice(argument):
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert None in override.value().list


def test_both_parsers_read_the_same(tmp_path, monkeypatch):
    """OmegaConf's own and libyaml's: numbers, dates that stay texts, and some of the shipped configs."""
    odd = "a: 1e3\nb: 2020-01-02\nc: .5\nd: 1_0\ne: on\nf: 0x1f\ng: 1:30\nh: ~\ni: 'x'\nj: !!str 3\nk: 1.\nl: 08\n"
    (tmp_path / "odd.yaml").write_text(odd)
    paths = [tmp_path / "odd.yaml", *sorted(cli.CONFIGS.rglob("*.yaml"))[::10]]
    quick = [OmegaConf.load(path) for path in paths]
    assert quick[0].b == "2020-01-02" and quick[0].a == 1000.0
    monkeypatch.setattr(hydra_internals.omegaconf_utils, "get_yaml_loader", hydra_internals.own_yaml_loader)
    assert quick == [OmegaConf.load(path) for path in paths]


def test_hydras_help_texts_pass_the_check_of_python_3_14(monkeypatch):
    """Hydra's help is a function, not yet a text; other parsers are checked as before."""

    def check(self, action):
        raise ValueError("badly formed help string")

    monkeypatch.setattr(argparse._ActionsContainer, "_check_help", check, raising=False)
    parser = args_parser()
    assert parser.parse_args(["a=1", "--multirun"]).overrides == ["a=1"]
    assert argparse._ActionsContainer._check_help is check
