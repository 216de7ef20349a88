"""What dl-run is measured against: the same training by other means, a process each. Prints its figures as JSON.

bench_loops.py hand|loader|lightning|keras mlp|lenet EPOCHS        bench_loops.py step resnet18 STEPS

All read the same 55,000 + 5,000 pictures, normalised before the clock starts, and validate after every epoch. `marks`
are the times at which epochs start, and the end of the last. hand and loader keep no train metrics, logs, checkpoints.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dlrun.build import CONFIGS, build
from dlrun.cli import plain

BATCH, EVAL_BATCH, LR, WARM = 128, 1000, 1e-3, 8
Part = tuple[Tensor, Tensor]  # (N, C, H, W) float32, normalised; (N,) int64


def load(*overrides: str) -> tuple[dict, Part, Part]:
    """The config, and the train and val parts as dl-run splits and normalises them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(compose("config", list(overrides)))
    data = build(config["data"])
    data.load(torch.device("cpu"))
    train, val = (tuple(map(torch.cat, zip(*data.batches(split), strict=True))) for split in ("train", "val"))
    return config, train, val


def network(name: str) -> nn.Module:
    if name == "mlp":
        hidden = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))
    maps = [nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 16, 3), nn.MaxPool2d(2), nn.ReLU()]
    hidden = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return nn.Sequential(*maps, nn.Flatten(), *hidden, nn.Linear(84, 10))


def shuffled(x: Tensor, y: Tensor) -> Iterator[Part]:
    return ((x[rows], y[rows]) for rows in torch.randperm(len(x)).split(BATCH))


def loaders(train: Part, val: Part) -> tuple[DataLoader, DataLoader]:
    return DataLoader(TensorDataset(*train), BATCH, shuffle=True), DataLoader(TensorDataset(*val), EVAL_BATCH)


def loader(name: str, train: Part, val: Part, epochs: int) -> dict:
    return fit(network(name), *loaders(train, val), epochs)


def hand(name: str, train: Part, val: Part, epochs: int) -> dict:
    batches = list(zip(val[0].split(EVAL_BATCH), val[1].split(EVAL_BATCH), strict=True))
    return fit(network(name), partial(shuffled, *train), batches, epochs)


def fit(net: nn.Module, train: Callable | DataLoader, val: Iterable[Part], epochs: int) -> dict:
    """The loop that one writes by hand."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    marks, acc = [time.time()], 0.0
    for _ in range(epochs):
        net.train()
        for x, y in train() if callable(train) else train:
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        net.eval()
        with torch.no_grad():
            acc = torch.cat([net(x).argmax(1) == y for x, y in val]).float().mean().item()
        marks.append(time.time())
    return {"marks": marks, "acc": acc}


def lightning(name: str, train: Part, val: Part, epochs: int) -> dict:
    import lightning as L
    from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger

    class Module(L.LightningModule):
        def training_step(self, batch: Part, index: int, part: str = "train") -> Tensor:
            out, y = self.net(batch[0]), batch[1]
            loss, hits = F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()
            self.log_dict({f"{part}/loss": loss, f"{part}/acc": hits}, on_step=False, on_epoch=True, batch_size=len(y))
            return loss

        def validation_step(self, batch: Part, index: int) -> None:
            self.training_step(batch, index, "val")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LR, fused=True)

    module, marks = Module(), []
    module.net = network(name)
    clock = LambdaCallback(**{f"on_train_{at}": lambda *_: marks.append(time.time()) for at in ("epoch_start", "end")})
    with tempfile.TemporaryDirectory() as folder:
        keep, logs = ModelCheckpoint(monitor="val/acc", mode="max", save_last=True), TensorBoardLogger(folder)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
        trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, logger=logs, callbacks=[keep, clock], **quiet)
        trainer.fit(module, *loaders(train, val))
    return {"marks": marks, "acc": trainer.callback_metrics["val/acc"].item()}


def keras(name: str, train: Part, val: Part, epochs: int) -> dict:
    os.environ["KERAS_BACKEND"] = "torch"
    from keras import Sequential, callbacks, config, layers, losses, optimizers

    config.set_image_data_format("channels_first")  # torch's own order
    maps = [m for n in (6, 16) for m in (layers.Conv2D(n, 3), layers.MaxPooling2D(), layers.Activation("relu"))]
    widths = (256, 128) if name == "mlp" else (120, 84)
    dense = [layers.Flatten(), *(layers.Dense(width, "relu") for width in widths), layers.Dense(10)]
    net = Sequential([layers.Input((1, 28, 28)), *(maps if name == "lenet" else ()), *dense])
    net.compile(optimizers.Adam(LR), losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    marks = []
    note = lambda *_: marks.append(time.time())  # noqa: E731
    clock = callbacks.LambdaCallback(on_epoch_begin=note, on_train_end=note)
    (x, y), judged = ([t.numpy() for t in part] for part in (train, val))
    with tempfile.TemporaryDirectory() as folder:
        keep = [callbacks.CSVLogger(f"{folder}/log.csv"), callbacks.ModelCheckpoint(f"{folder}/last.keras"), clock]
        judge = {"validation_data": judged, "validation_batch_size": EVAL_BATCH}
        history = net.fit(x, y, BATCH, epochs, verbose=0, callbacks=keep, **judge).history
    return {"marks": marks, "acc": history["val_accuracy"][-1]}


def step(name: str, steps: int) -> float:
    """Seconds per step of a hand-written bf16 channels_last loop, with dl-run's own network."""
    config, (x, y), _ = load(f"model={name}", "data=cifar10")
    net = build(config["model"])(build(config["data"]["spec"])).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    batches, started = shuffled(x.to(memory_format=torch.channels_last), y), 0.0
    for number in range(WARM + steps):
        started = time.time() if number == WARM else started
        x, y = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x)
        F.cross_entropy(out.float(), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.time() - started) / steps


if __name__ == "__main__":
    what, net, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    found = step(net, count) if what == "step" else globals()[what](net, *load("data=mnist")[1:], count)
    print(json.dumps(found))
