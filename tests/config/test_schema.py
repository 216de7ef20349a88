"""The JSON Schema: all shipped configs pass, misspelt keys and wrong values fail, and it agrees with the checks."""

import copy
import json
import sys
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator as Validator
from jsonschema.exceptions import best_match
from omegaconf import OmegaConf

from dlrun import cli
from dlrun.config import schema as module
from dlrun.config.check import SECTIONS, nested_kind
from dlrun.config.editor import write_vscode
from dlrun.config.named import named_of, problems_of_named
from dlrun.config.pairing import CONFIGS
from dlrun.config.schema import schema
from dlrun.config.schema_types import typed
from dlrun.config.signatures import signature
from dlrun.config.values import mismatch
from dlrun.errors import UserError
from dlrun.types import Loss

YAMLS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
FREE = {"hydra", "checksums", "space"}  # its keys are the user's names


@cache
def validator(config_dir=None):
    return Validator(schema(config_dir))


def read(name):
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / name), resolve=False)


def keys_of(node, path=()):
    """The paths of all keys that the schema knows."""
    for key, value in node.items():
        if key in FREE:
            continue
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*path, key))


def target_of(content, path):
    """The nearest `_target_` around a key; experiments have none."""
    found = ""
    for key in path:
        found = content.get("_target_", found)
        content = content[key]
    return found


def without(content, path, new):
    """A copy of the config in which the last key of a path has another name."""
    found = copy.deepcopy(content)
    node = found
    for key in path[:-1]:
        node = node[key]
    node[new] = node.pop(path[-1])
    return found


@pytest.mark.thorough
def test_the_schema_is_valid_itself():
    Validator.check_schema(schema(None))


def test_shipped_configs_pass():
    for name in YAMLS:
        error = best_match(validator().iter_errors(read(name)))
        assert error is None, f"{name}: {error.json_path}: {error.message}"


@pytest.mark.thorough
def test_misspelt_keys_fail():
    """Every key of every target, in the first config that has it: others of the same target have the same schema."""
    cases, accepted = {}, []
    for name in YAMLS:
        content = read(name)
        for path in keys_of(content):
            cases.setdefault((path, target_of(content, path)), (name, content))
    for (path, _), (name, content) in cases.items():
        misspelt = f"{path[-1][:-1]}_{path[-1][-1]}"
        if validator().is_valid(without(content, path, misspelt)):
            accepted.append(f"{name}: {'.'.join(path)} as {misspelt}")
    assert len(cases) > 500 and not accepted


WRONG = [
    {"model": {"hiden": [64]}},
    {"trainer": {"epochs": 0}},
    {"trainer": {"epochs": "ten"}},
    {"trainer": {"on_nan": "ignore"}},
    {"optimizer": {"lr": -1.0}},
    {"model": {"dropout": 1.0}},
    {"seed": -1},
    {"mode": "trian"},
    {"defaults": [{"override /model": "resnet19"}]},
    {"defaults": [{"override /modle": "resnet18"}]},
    {"defaults": ["nothere"]},
    {"defaults": ["adam"]},  # of another group than experiments
    {"defaults": ["adam", "_self_"], "trainer": {"epochs": 3}},
    {"defaults": [{"override /model": ["mlp", "linear"]}]},
    {"defaults": [{"override /tracker": ["wandb", "mlflw"]}]},
    {"defaults": [{"override /trainer": "mynets.trainer.Own"}]},
    {"defaults": [{"override /optimizer": "mynets.a-b"}]},
    {"data": {"source": {"sampels": 3}}},
    {"model": {"_target_": "dlrun.models.mlp.mlp", "depth": 18}},
    {"model": {"_target_": "os.system"}},
    {"_target_": "dlrun.optim.optimizers.adam", "momentum": 0.9},
    {"defaults": ["adam", "_self_"], "momentun": 0.9},
    {"modle": {"hidden": [64]}},
    {"optimizer": {"groups": {"bias": {"lr": 0.1}}}},
    {"optimizer": {"groups": {"biases": {"lr": 0}}}},
    {"tracker": {"wandb": {"mode": "ofline"}}},
    {"wandb": {"_target_": "dlrun.tracking.trackers.Wandb", "projekt": "x"}},
]


@pytest.mark.parametrize("content", WRONG, ids=str)
def test_the_schema_rejects_mistakes(content):
    assert not validator().is_valid(content)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"hidden": [64, 32], "dropout": 0.5}, "trainer": {"epochs": 3}, "seed": "${oc.env:SEED,0}"},
        {"defaults": [{"override /model": "resnet18"}, {"override /data": "cifar10"}, "_self_"]},
        {"defaults": [{"override /tracker": ["wandb", "mlflow"]}, {"override /optimizer": "mynets.optim.lion"}]},
        {"defaults": ["lenet_mnist", "_self_"], "trainer": {"epochs": 3}},
        {"defaults": ["auto_mpg", "_self_"], "trainer": {"epochs": 3}},  # data and an experiment have this name
        {"defaults": ["mlp", "_self_"], "model": {"hidden": [64]}},
        {"defaults": ["wandb", "_self_"], "wandb": {"mode": "online"}},
        {"data": {"augment": {"flip": True}, "batch_size": "auto"}},
        {"model": {"weights": "imagenet", "form": "auto"}, "optimizer": {"lr": "auto"}},
        {"optimizer": {"groups": {"biases": {"weight_decay": 0}}}, "tracker": {"wandb": {"mode": "online"}}},
        {"optimizer": {"_target_": "torch.optim.NAdam", "lr": 0.1, "momentum_decay": 0.004}},
        {"hydra": {"sweeper": {"params": {"seed": "0,1,2"}}}},
        None,
    ],
    ids=str,
)  # fmt: skip
def test_the_schema_accepts_valid_changes(content):
    assert validator().is_valid(content)


def annotations():
    """Every plain type of a config key, with its location."""
    found, targets = {}, module._Schema(None).targets
    for name in SECTIONS:
        for target in targets[name]:
            for key, annotation in signature(target).keys.items():
                if nested_kind(annotation) is None and named_of(annotation) is None:
                    found.setdefault(str(annotation), (f"{target}.{key}", annotation))
    return list(found.values())


VALUES = [
    None, True, False, -1, 0, 1, 2, 64, 10**6 + 1, 10**9 + 1, -0.5, 0.5, 0.999, 1.5, "", " ", "x", "auto", "relu",
    [], [1], [0], [-1], [1, 2], [0.5, 0.9], ["a"], ["a", 1], [["a", 1]], [["a", 0.5]], [1, 2, 3], {}, {"a": 1},
]  # fmt: skip


def test_types_agree_with_the_checks_of_the_command():
    """For every type in a signature, and values of all kinds: the schema accepts what `check` accepts."""
    found = annotations()
    assert len(found) > 30
    for place, annotation in found:
        check = Validator(typed(annotation))
        for value in VALUES:
            assert check.is_valid(value) == (mismatch(value, annotation) is None), f"{place}={value!r}: {annotation}"


@pytest.mark.parametrize("key", ["loss", "metrics"])
def test_named_values_agree_with_the_checks_of_the_command(key):
    """The schema does not know the user's packages, and leaves keys in a mapping to the checks."""
    annotation = signature("dlrun.tasks.supervised.Supervised").keys[key]
    check = Validator(typed(annotation))
    words = ["auto", "focal", "f1", "f1_micro", "top3", "top", "f2", "mse", "", "f1_", "a b", 3, None, True]
    for word in words:
        value = [word] if key == "metrics" else word
        is_right = not problems_of_named(value, annotation, "x")
        assert check.is_valid(value) == is_right or word == "top", f"{word!r}"
    assert check.is_valid([{"_target_": "f1"}] if key == "metrics" else {"_target_": "focal", "gamma": 1})
    assert check.is_valid(["mynets.x.y"] if key == "metrics" else "mynets.x.y")


def test_the_schema_holds_units_ranges_and_headers():
    found = schema()["$defs"]
    trainer = found["dlrun.train.trainer.Trainer"]["properties"]
    assert trainer["max_time"]["description"] == "minutes of training, over all sessions"
    assert {"type": "number", "exclusiveMinimum": 0} in trainer["max_time"]["anyOf"]
    (lenet,) = [option for option in found["options.model"]["anyOf"] if option.get("const") == "lenet"]
    assert "LeNet" in lenet["description"] and "dl-run model=lenet" in lenet["description"]
    notes = [value.get("description") for value in trainer.values()]
    assert notes.count(None) <= 1, "every key of the trainer is explained"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The user's own configs: a model in a package, and an experiment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\nfrom dlrun.spec import Table\nfrom dlrun.types import Count\n\n\n"
        "def wide(spec: Table, *, breadth: Count) -> nn.Module:\n    return nn.Linear(spec.features, breadth)\n"
    )
    for name, text in {
        "model/wide": "# One wide layer.\nmodel:\n  _target_: mynets.wide\n  breadth: 3 # in metres\n",
        "experiment/first": "# My first.\ndefaults:\n  - override /model: wide\nmodel:\n  breadth: 5\n",
    }.items():
        path = tmp_path / "my" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(f"# @package _global_\n{text}")
    return tmp_path / "my"


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "builtins.eval"])
def test_no_message_advises_to_allow_python_s_own_code(mine, target):
    (mine / "model" / "wide.yaml").write_text(f"# @package _global_\nmodel:\n  _target_: {target}\n")
    with pytest.raises(UserError, match="which no config may build") as refused:
        schema("my")
    (problem,) = problems_of_named(target, Loss, "task.loss")
    package = target.partition(".")[0]
    assert "is not allowed here" in problem and f"={package}" not in f"{refused.value}{problem}".replace(target, "")
    assert "DL_RUN_ALLOW=mynets" in problems_of_named("mynets.wide", Loss, "task.loss")[0]


def test_the_schema_covers_the_users_own_configs(mine, monkeypatch):
    with pytest.raises(
        UserError, match="wide.yaml: _target_='mynets.wide' is code of your own\n  expected: DL_RUN_ALLOW"
    ):
        schema("my")
    monkeypatch.setattr("dlrun.config.signatures.ALLOWED", frozenset({"mynets"}))
    found = schema("my")
    check = Validator(found)
    content = OmegaConf.to_container(OmegaConf.load(mine / "experiment" / "first.yaml"))
    assert check.is_valid(content) and not validator().is_valid(content)
    assert not check.is_valid(content | {"model": {"breath": 5}}) and not check.is_valid(
        content | {"model": {"breadth": 0}}
    )
    assert found["$defs"]["mynets.wide"]["properties"]["breadth"]["description"] == "in metres"


def test_code_that_an_experiment_chooses_is_known_with_its_keys(mine, monkeypatch):
    (mine / "experiment" / "more").mkdir()
    path = mine / "experiment" / "more" / "second.yaml"
    path.write_text("# @package _global_\ndefaults:\n  - override /model: mynets.wide\nmodel: {breadth: 5}\n")
    (mine / "model" / "wide.yaml").unlink()
    (mine / "experiment" / "first.yaml").unlink()
    with pytest.raises(UserError, match="second.yaml: _target_='mynets.wide' is code of your own"):
        schema("my")
    monkeypatch.setattr("dlrun.config.signatures.ALLOWED", frozenset({"mynets"}))
    check = Validator(schema("my"))
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert check.is_valid(content) and not check.is_valid(content | {"model": {"breath": 5}})
    assert check.is_valid({"defaults": ["more/second", "_self_"], "model": {"breadth": 4}})


def test_a_new_package_passes_and_its_files_are_covered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dl-run", "new", "mynets"])
    cli.main()
    monkeypatch.chdir(tmp_path / "mynets")
    monkeypatch.setattr(sys, "argv", ["dl-run", "schema", "--vscode"])
    capsys.readouterr()
    cli.main()
    assert "src/mynets/configs: its options are not in the schema yet" in capsys.readouterr().out
    monkeypatch.syspath_prepend(tmp_path / "mynets" / "src")
    monkeypatch.setattr("dlrun.config.signatures.ALLOWED", frozenset({"mynets"}))
    configs = tmp_path / "mynets" / "src" / "mynets" / "configs"
    (configs / "recipe").mkdir()
    (configs / "recipe" / "fast.yaml").write_text("# @package _global_\ntrainer: {epochs: 1}\n")
    (configs / "views").mkdir()
    (configs / "views" / "flips.yaml").write_text("# @package data.augment\nflip: true\n")
    for user in ("usage", "editor"):  # as if it was installed
        monkeypatch.setattr(f"dlrun.config.{user}.option_folders", lambda: [configs])
    cli.main()
    assert "not in the schema" not in capsys.readouterr().out
    (globs,) = json.loads(Path(".vscode/settings.json").read_text())["yaml.schemas"].values()
    covered = {path for pattern in globs for path in Path().glob(pattern)}
    assert covered == {path.relative_to(Path.cwd()) for path in configs.rglob("*.yaml") if path.parent.name != "views"}
    check = Validator(json.loads(Path(".vscode/dl-run.schema.json").read_text()))
    for path in covered:
        error = best_match(check.iter_errors(OmegaConf.to_container(OmegaConf.load(path))))
        assert error is None, f"{path}: {error.json_path}: {error.message}"
    assert check.is_valid({"defaults": [{"/views": "flips"}, {"recipe": ["fast"]}]})
    assert not check.is_valid({"data": {"source": {"_target_": "mynets.readers.bars", "sampels": 3}}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "cannot read .*broken.yaml, line 2"),
        ("- 1\n", "holds list: expected keys with values"),
        (
            "# @package _global_\nmodel: {_target_: dlrun.models.mlp.mpl}\n",
            "broken.yaml: _target_='dlrun.models.mlp.mpl': .*did you mean 'mlp'",
        ),
    ],
)
def test_a_config_that_cannot_be_read_is_named(mine, text, message):
    (mine / "model" / "wide.yaml").unlink()
    (mine / "model" / "broken.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        schema("my")


def test_existing_settings_of_vscode_are_kept(mine, monkeypatch):
    monkeypatch.setattr("dlrun.config.signatures.ALLOWED", frozenset({"mynets"}))
    write_vscode("./my")
    settings = mine.parent / ".vscode" / "settings.json"
    found = json.loads(settings.read_text())
    assert "my/experiment/*.yaml" in found["yaml.schemas"]["./.vscode/dl-run.schema.json"]
    settings.write_text(json.dumps({"a": 1, "yaml.schemas": {"b": "c"}}))
    write_vscode()
    found = json.loads(settings.read_text())
    assert found["a"] == 1 and found["yaml.schemas"]["b"] == "c" and len(found["yaml.schemas"]) == 2
    settings.write_text("{} // a comment")
    with pytest.raises(UserError, match="cannot read .*settings.json.*\n  expected JSON without comments"):
        write_vscode()
    assert settings.read_text() == "{} // a comment"


@pytest.mark.parametrize("arguments", [["--config-dir", "nowhere"], ["x"], ["--vscod"]])
def test_wrong_arguments_of_the_command_are_refused(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dl-run", "schema", *arguments])
    with pytest.raises(SystemExit) as leave:
        cli.main()
    assert leave.value.code == 2 and "expected" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["--vscode"]])
def test_the_command(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dl-run", "schema", *arguments])
    cli.main()
    out = capsys.readouterr().out
    found = json.loads(out if not arguments else (tmp_path / ".vscode" / "dl-run.schema.json").read_text())
    assert found["$defs"]["model"]
