"""Which code a config may name."""

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from dlrun.config import signatures


@pytest.mark.thorough(
    but=[
        "model-os.system",
        "model-dlrun.output.checkpoint.save",
        "model-dlrun.models.mlp._hidden",
        "optimizer-torch.load",
        "data.source-dlrun.data.readers.images.shutil.rmtree",
        "trainer-dlrun.output.run_folder.RunFolder",
    ]
)
@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("model", "os.system"),
        ("model", "builtins.eval"),
        ("model", "dlrun.output.checkpoint.save"),
        ("model", "dlrun.models.mlp.__builtins__.eval"),
        ("model", "dlrun.models.mlp._hidden"),
        ("model", "dlrun.models..mlp"),
        ("model", ""),
        ("optimizer", "torch.load"),
        ("optimizer", "torch.optim.lr_scheduler.os.system"),
        ("data", "dlrun.data.sources.unpack.unpack"),
        ("data", "subprocess.run"),
        ("data.source", "dlrun.data.sources.unpack.unpack"),
        ("data.source", "dlrun.data.readers.images.fetch"),
        ("data.source", "dlrun.data.readers.images.shutil.rmtree"),
        ("data.spec", "dlrun.spec.UserError"),
        ("task", "dlrun.train.trainer.Trainer"),
        ("schedule", "dlrun.cli.main"),
        ("trainer", "dlrun.output.run_folder.RunFolder"),
    ],
)
def test_a_target_outside_the_allow_list_is_refused(refused, section, target):
    text = refused(f"{section}._target_={target}")
    assert f"{section}._target_=" in text and (
        "expected a " in text or "there is no module" in text or "has no" in text
    )


def test_a_target_that_does_not_exist_is_refused_with_the_nearest_name(refused):
    text = refused("model._target_=dlrun.models.mlp.mpl")
    assert "dlrun.models.mlp has no 'mpl'; did you mean 'mlp'?" in text


def test_the_users_own_package_must_be_allowed_in_the_environment(dl_run, monkeypatch, tmp_path):
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "nets.py").write_text(
        "from os import system\n"
        "from shutil import rmtree\n"
        "from .inner import other\n"
        "from dlrun.spec import Image\n"
        "def net(spec: Image, *, width: int = 3) -> object: raise RuntimeError('built')\n"
    )
    (tmp_path / "mynets" / "inner.py").write_text("def other(spec, *, width: 'int'): ...\n")
    (tmp_path / "mynets" / "broken.py").write_text("def (:\n")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "my.yaml").write_text(
        "# @package _global_\nmodel: {_target_: mynets.nets.net, width: 4}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = ("--config-dir=mine", "model=my")
    assert "mynets.nets.net' is not allowed here" in dl_run(*mine)[2]
    monkeypatch.setattr(signatures, "ALLOWED", {"mynets"})
    assert "model.width=x: expected an integer" in dl_run(*mine, "model.width=x")[2]
    assert "model=my cannot learn from data=moons" in dl_run(*mine, "data=moons")[2]
    # Python 3.10 can read os.py, later ones have it built in
    assert "model._target_='os.system': " in dl_run(*mine, "model._target_=mynets.nets.system")[2]
    assert "is shutil.rmtree, which is not allowed" in dl_run(*mine, "model._target_=mynets.nets.rmtree")[2]
    err = dl_run(*mine, "model._target_=mynets.broken.net")[2]
    assert "'mynets.broken.net' cannot be read as Python: SyntaxError: " in err and "broken.py, line 1: def (:)" in err
    code, _, err = dl_run(*mine, "model._target_=mynets.nets.other", "data=nothing")
    assert code == 2 and "data=nothing" in err
    code, _, err = dl_run(*mine)
    assert code == 2 and "model=mynets.nets.net raised RuntimeError: built (" in err and "nets.py, line 5)" in err


def test_the_model_of_the_readme_works_in_the_users_own_package(dl_run, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code, option = (dedent(re.search(rf"  ```{kind}\n(.*?)  ```\n", text, re.DOTALL)[1]) for kind in ("python", "yaml"))
    assert "`dl-run new mynets`" in text
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "nets.py").write_text(code)
    (tmp_path / "my" / "configs" / "model").mkdir(parents=True)
    (tmp_path / "my" / "configs" / "model" / "wide.yaml").write_text(option.replace("dlrun.models.wide", "mynets.nets"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mynets", "mynets.nets"):  # left by another test
        sys.modules.pop(name, None)
    monkeypatch.setattr(signatures, "ALLOWED", {"mynets"})
    found = dl_run("model=wide", "--config-dir", "my/configs", "mode=summary")
    assert found[0] == 0 and found[1].startswith("model=wide data=digits: Image(shape=1x8x8, classes=10)")
