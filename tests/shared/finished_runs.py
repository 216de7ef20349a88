"""Finished runs: trained on small data, or pretended, with initial weights."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from omegaconf import OmegaConf
from runs import compose, train, undrawn, write_mnist

from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.output.checkpoint import save
from dlrun.runs.cli import main
from dlrun.train.assemble import assemble

CPU = ["trainer.device=cpu", "trainer.epochs=1", "trainer.log_every=0"]
SHAPES = ["data.source.samples=30", "data.source.test_samples=12"]
REPLAY = ["task.buffer_size=512", "task.learning_starts=64"]
FAMILIES = {  # a small run of each family of tasks; {data} is a folder
    "classes": ["data=digits", "model.hidden=[16]"],
    "two classes": ["data=moons", "model.hidden=[8]"],
    "targets": ["data=swiss_roll", "model=linear", "data.standardize=true", "data.source.samples=200"],
    "columns": ["data=diabetes", "model=tabular", "model.hidden=[8]", "model.members=2", "data.batch_size=64"],
    "texts": ["data=text_folder", "model=gru", "data.root={data}/texts.csv", "data.vocab=50", "data.length=6"],
    "masks": ["model=unet", "data=shapes", "data.spec.shape=[3,16,16]", "model.width=4", "model.depth=2", *SHAPES],
    "autoencoder": ["model=autoencoder", "data=digits"],
    "vae": ["model=vae", "data=digits", "task.iwae_samples=0"],
    "gan": ["model=gan", "data=gaussians"],
    "actor": ["model=ppo", "data=cartpole", "data.epoch_frames=256", "task.num_steps=16", "task.eval_episodes=4"],
    "table": ["model=q_learning", "data.epoch_frames=200", "task.eval_episodes=4"],
    "values": ["model=dqn", "data=cartpole", "data.epoch_frames=256", "task.eval_episodes=4", *REPLAY],
}


def write_config(folder: Path, overrides: list[str]) -> tuple[dict, dict]:
    """Write the `.hydra` folder as dl-run does; returns the config and the options chosen in all groups."""
    config, names = compose(*overrides)
    (folder / ".hydra").mkdir(parents=True)
    files = {"config": config, "hydra": {"hydra": {"runtime": {"choices": names}}}, "overrides": overrides}
    for name, content in files.items():
        (folder / ".hydra" / f"{name}.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
    return config, names


def trained(folder: Path, overrides: list[str], draws: bool = False) -> Path:
    """Train a run of an epoch and test it. draws: with plots, which take most of the time."""
    with nullcontext() if draws else undrawn():
        train(folder, write_config(folder, [*CPU, *overrides]), finish=True)
    return folder


def untrained(folder: Path, overrides: list[str]) -> Path:
    """Write a run as if trained: random weights and statistics of norms."""
    config, names = write_config(folder, [*CPU, "trainer.test=best", *overrides])
    parts = assemble(config)
    parts.data.load(parts.device.torch_device, parts.device.channels_last)
    for name, buffer in parts.task.net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    (folder / "checkpoints").mkdir()
    best = {"metric": f"val/{parts.task.goal}", "value": 0.5, "epoch": 1}
    state = {"state_dict": parts.task.best_state(), "data": parts.data.fitted()}
    save(folder / "checkpoints" / "best.ckpt", state)
    facts = {"status": "finished", "best": best, "test": {}, "model": names["model"], "data": names["data"]}
    (folder / "summary.json").write_text(json.dumps(facts))
    return folder


def write_texts(folder: Path) -> Path:
    """Write texts.csv: 60 texts of two classes."""
    words = {"good": "fine great lovely warm", "bad": "dull awful weak cold"}
    rows = [
        f'"a film {name} {words[name].split()[i % 4]} and {words[name].split()[i % 3]} it is",{name}'
        for i in range(30)
        for name in words
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder


def small_overrides(model: str, kind: str, folder: Path) -> list[str]:
    """Overrides for a small model of this kind of data, with the smallest images that it accepts."""
    if kind == "Tokens":
        write_texts(folder)
        return [f"model={model}", *(o.format(data=folder) for o in FAMILIES["texts"] if not o.startswith("model"))]
    if kind == "Series":
        return [f"model={model}", "data=eeg"]
    if kind in ("Table", "Columns"):
        return [f"model={model}", "data=moons"]
    for side in (28, 36, 72):
        overrides = [f"model={model}", "data=mnist", f"data_dir={folder}", "data.source.download=false"]
        overrides.append(f"data.spec.shape=[1,{side},{side}]")
        config, _ = compose(*overrides)
        try:
            with torch.device("meta"):
                spec = build(config["data"]).spec
                build(config["model"])(spec).eval()(torch.empty(2, *spec.shape))
        except UserError:
            continue
        write_mnist(folder, side=side)
        return overrides
    raise AssertionError(f"{model} takes no small images")


def command(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run `dl-runs` in this process: (exit code, standard output, standard error)."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["dl-runs", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()
