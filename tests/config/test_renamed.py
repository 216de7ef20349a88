"""An old config key is refused with its new name in every place where it can be typed."""

import sys

import pytest
from omegaconf import OmegaConf
from toys import composed

from dlrun import cli
from dlrun.config.check import check
from dlrun.config.older import ADDED, MOVED
from dlrun.config.renamed import RENAMED
from dlrun.config.saved import read_config
from dlrun.config.signatures import public_names, signature
from dlrun.errors import ConfigError


@pytest.mark.thorough(
    but=[
        "mlp-task.pieces-task.grad_accum_steps",
        "resnet18-schedule.warmup-schedule.warmup_fraction",
        "ppo-data.film_steps-data.video_steps",
    ]
)
@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        ("ppo", "task.passes", "task.update_epochs"),
        ("dqn", "task.warmup", "task.learning_starts"),
        ("vae", "task.warmup", "task.kl_warmup_epochs"),
        ("mlp", "task.pieces", "task.grad_accum_steps"),
        ("resnet18", "schedule.warmup", "schedule.warmup_fraction"),
        ("ppo", "data.film_steps", "data.video_steps"),
        ("unet data=mask_folder", "data.source.pictures", "data.images"),
        ("gru data=text_folder", "data.source.path", "data.root"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(model, old, new, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dl-run", *f"model={model}".split(), f"{old}=1"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"dl-run: {old}=1: this key was renamed\n  expected {new}=1\n"
    assert not list(tmp_path.iterdir())


def test_an_old_key_in_a_file_is_refused_with_its_new_name():
    config = composed("model=ppo")
    config["task"] = {k: v for k, v in config["task"].items() if k != "update_epochs"} | {"passes": 3}
    with pytest.raises(ConfigError, match="task.passes=3: this key was renamed\n    expected task.update_epochs=3"):
        check(config)


def test_a_key_renamed_in_another_class_is_unknown():
    config = composed("model=mlp")
    config["task"] = config["task"] | {"passes": 3}
    with pytest.raises(ConfigError, match="has no 'passes'"):
        check(config)


def test_no_new_key_is_an_old_one_of_its_section():
    for table in RENAMED.values():
        assert not table.keys() & {new for names in table.values() for new in names}


def test_the_config_of_an_old_run_is_read_with_the_present_module_names(tmp_path):
    (tmp_path / ".hydra").mkdir()
    old = "tracker: {wandb: {_target_: dlrun.runs.trackers.Wandb, project: p}, own: {_target_: mine.Own}}"
    (tmp_path / ".hydra" / "config.yaml").write_text(f"{old}\nmodel: {{_target_: dlrun.models.mlp.mlp}}\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: mlp}}}\n")
    saved, _ = read_config(tmp_path)
    present = {"_target_": "dlrun.tracking.trackers.Wandb", "project": "p"}
    assert saved.tracker.wandb == present | ADDED["dlrun.tracking.trackers.Wandb"]
    assert saved.tracker.own == {"_target_": "mine.Own"} and saved.model == {"_target_": "dlrun.models.mlp.mlp"}
    for before, now in MOVED.items():
        assert public_names(now, "class") and not public_names(before, "class")


def test_the_keys_of_an_old_run_have_their_new_names(tmp_path):
    (tmp_path / ".hydra").mkdir()
    old = {"task": {"_target_": "dlrun.tasks.generative.vae.Vae", "n_samples": 4, "warmup": 2, "pieces": 1}}
    (tmp_path / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(old))
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: vae}}}\n")
    task = read_config(tmp_path)[0].task
    assert (task.num_samples, task.kl_warmup_epochs) == (4, 2) and "n_samples" not in task
    assert task.pieces == 1, "a key that the class never had"


def test_keys_that_an_old_run_lacks_are_added_with_their_former_effect(tmp_path):
    config = composed("model=bag_of_words", "data=text_folder", "data.stratify=true")
    old = {"data": {k: v for k, v in config["data"].items() if k != "stratify"}}
    net = composed("model=resnet18", "model.head=[8]", "data=cifar10")["model"]
    old["model"] = {k: v for k, v in net.items() if "head" not in k and k != "pool"}
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(old))
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {data: text_folder}}}\n")
    saved, _ = read_config(tmp_path)
    assert saved.data.stratify is False and (saved.model.pool, saved.model.head) == ("mean", [])
    for target, keys in ADDED.items():
        assert keys.keys() <= signature(target).keys.keys()


@pytest.mark.parametrize(("data", "reader", "old", "new"), [
    ("text_folder", "texts.text_folder", {"path": "mail.csv", "tokens": "${data.tokens}"}, "mail.csv"),
    ("mask_folder", "masks.mask_folder", {"folder": "/cells", "classes": 2, "values": [0, 255]}, "/cells"),
])  # fmt: skip
def test_an_old_run_with_a_reader_apart_is_read_as_the_present_class(data, reader, old, new, tmp_path):
    present = composed(f"data={data}", "model=unet" if data == "mask_folder" else "model=gru")["data"]
    moved = ("data_dir", "root", "header", "text_column", "label_column", "images", "masks", "max_pixels", "values")
    moved += ("test_fraction", "random_state")
    source = {k: present[k] for k in moved if k in present and k != "root"} | old
    source["_target_"] = f"dlrun.data.readers.{reader}"
    kept = {k: v for k, v in present.items() if k not in moved}
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(
        OmegaConf.to_yaml({"data": kept | {"_target_": "dlrun.data.texts.texts.Texts", "source": source}})
    )
    (tmp_path / ".hydra" / "hydra.yaml").write_text(f"hydra: {{runtime: {{choices: {{data: {data}}}}}}}\n")
    saved = OmegaConf.to_container(read_config(tmp_path)[0])
    assert saved["data"] == present | {"root": new} | {k: v for k, v in old.items() if k == "values"}
