"""Folders of runs with only the files that lists, curves and trackers read."""

import json
from pathlib import Path


def write_run(folder: Path, epochs: int = 4, status: str = "finished", name: str = "loss", **summary: object) -> Path:
    """Write the files of a run that lists and curves read; its loss falls as 1 / epoch. Returns `folder`."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("[]\n")
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\ntrainer:\n  _target_: x\n  epochs: 10\n")
    facts = {
        "status": status,
        "model": "mlp",
        "data": "digits",
        "goal": f"val/{name}",
        "scores": {f"val/{name}": "min"},
    }
    (folder / "summary.json").write_text(json.dumps(facts | summary))
    with open(folder / "metrics.jsonl", "w") as file:
        for i in range(1, epochs + 1):
            row = {"step": 10 * i, "epoch": i, f"train/{name}": 1 / i, f"val/{name}": 2 / i, "time/seconds": 2.0}
            file.write(json.dumps(row | {"time/val_seconds": 0.5}) + "\n")
    return folder
