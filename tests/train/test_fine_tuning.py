"""Fine-tuning in five steps, as docs/images.md has it: what is loaded, new, frozen and unfrozen, epoch by epoch."""

import re
import shlex

import numpy as np
import pytest
from finished_runs import untrained
from PIL import Image as PILImage
from runs import CONFIGS, compose, train

from dlrun.train.weights import read_weights

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.thorough]
SMALL = [
    "model.growth=4", "data.spec.shape=[3,32,32]", "data.batch_size=32", "model.head=[8]", "trainer.device=cpu",
    "optimizer=sgd", "optimizer.lr=0.1",
]  # fmt: skip


def write_images(root, classes):
    rng = np.random.RandomState(len(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(6):
            PILImage.fromarray(rng.randint(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / name / f"{i}.png")


def documented() -> list[str]:
    """The words of the command in docs/images.md, without its data and its download."""
    page = (CONFIGS.parent / "docs" / "images.md").read_text(encoding="utf-8")
    command = re.search(r"### Fine-tuning in five steps\n.*?```\ndl-run (.*?)\n```", page, re.DOTALL)[1]
    words = shlex.split(command.replace("\\\n", ""))
    return [word for word in words if not word.startswith(("data.root=", "data.spec", "model.weights", "model.head="))]


def layers(before: dict, after: dict) -> set[str]:
    changed = {name for name in before if not (before[name] == after[name]).all() and "running" not in name}
    return {".".join(name.split(".")[: 1 + name.startswith("features")]) for name in changed if "num_b" not in name}


def test_the_five_steps_of_the_page(tmp_path):
    write_images(tmp_path / "first", "abcd")
    write_images(tmp_path / "second", "xyz")
    keys = [*SMALL, f"data_dir={tmp_path}"]
    first = untrained(
        tmp_path / "run", ["model=densenet121", "data=image_folder", "data.root=first", *keys, "model.head=[]"]
    )
    words = [*documented(), *keys, "data.root=second", f"init={first}"]
    assert "trainer.epochs=10" in words
    states: dict = {"start": read_weights(str(first))}
    for epochs in (3, 5):
        train(tmp_path / str(epochs), compose(*words, f"trainer.epochs={epochs}"))
        states[epochs] = read_weights(str(tmp_path / str(epochs) / "checkpoints" / "last.ckpt"))
    shared = {name for name in states["start"] if name.startswith("features.")}
    loaded, alone, tuned = ({name: each[name] for name in shared} for each in states.values())
    assert layers(loaded, alone) == set(), "steps 1 to 4: the backbone is that of the run, and the head learns alone"
    assert all((loaded[name] == alone[name]).all() for name in shared), "its statistics too"
    assert layers(loaded, tuned) == {"features.denseblock4", "features.norm5"}, "step 5"
    assert "classifier.4.weight" in states[3] and layers(states[3], states[5]) > {"classifier"}
