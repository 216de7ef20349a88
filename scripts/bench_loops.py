"""The same training without dl-run: by hand, with a DataLoader, Lightning or Keras. Print the figures as JSON.

bench_loops.py hand|loader|lightning|keras mlp|lenet EPOCHS        bench_loops.py step resnet18 STEPS
bench_loops.py hand|keras lstm EPOCHS

All use the same 55,000 + 5,000 images, normalised before the clock starts, or the same 22,500 + 2,500 reviews as token
ids, and validate after every epoch. `marks` holds the start time of each epoch and the end of the last one. hand and
loader compute no train metrics and write no logs and no checkpoints.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dlrun.config.build import build
from dlrun.config.pairing import CONFIGS
from dlrun.config.saved import plain

BATCH, EVAL_BATCH, LR, WARM = 128, 1000, 1e-3, 8
DATA = {"mlp": "mnist", "lenet": "mnist", "resnet18": "cifar10", "lstm": "imdb"}
Split = tuple[Tensor, Tensor]  # (N, C, H, W) float32, normalised, or (N, T) int32; (N,) int64


def load(*overrides: str) -> tuple[nn.Module, Split, Split]:
    """Return dl-run's network, and the train and val splits as dl-run splits and normalises them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(compose("config", list(overrides)))
    data, net = build(config["data"]), build(config["model"])
    data.load(torch.device("cpu"))
    train, val = (tuple(map(torch.cat, zip(*data.batches(split), strict=True))) for split in ("train", "val"))
    return net(data.spec), train, val


def shuffled(x: Tensor, y: Tensor, size: int = BATCH) -> Iterator[Split]:
    return ((x[rows], y[rows]) for rows in torch.randperm(len(x), device=x.device).split(size))


def loaders(train: Split, val: Split) -> tuple[DataLoader, DataLoader]:
    return DataLoader(TensorDataset(*train), BATCH, shuffle=True), DataLoader(TensorDataset(*val), EVAL_BATCH)


def loader(net: nn.Module, train: Split, val: Split, epochs: int) -> dict:
    first, second = loaders(train, val)
    return fit(net, lambda: first, second, epochs)


def hand(net: nn.Module, train: Split, val: Split, epochs: int) -> dict:
    batches = list(zip(val[0].split(EVAL_BATCH), val[1].split(EVAL_BATCH), strict=True))
    return fit(net, lambda: shuffled(*train), batches, epochs)


def fit(net: nn.Module, train: Callable[[], Iterable[Split]], val: Iterable[Split], epochs: int) -> dict:
    """A hand-written training loop."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    marks, acc = [time.time()], 0.0
    for _ in range(epochs):
        net.train()
        for x, y in train():
            loss_of(net(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        net.eval()
        with torch.no_grad():
            acc = torch.cat([classes(net(x)) == y for x, y in val]).float().mean().item()
        marks.append(time.time())
    return {"marks": marks, "acc": acc}


def loss_of(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy from one logit per class, or binary cross-entropy from a single logit."""
    return F.cross_entropy(out, y) if out.shape[1] > 1 else F.binary_cross_entropy_with_logits(out[:, 0], y.float())


def classes(out: Tensor) -> Tensor:
    return out.argmax(1) if out.shape[1] > 1 else (out[:, 0] > 0).long()


def lightning(net: nn.Module, train: Split, val: Split, epochs: int) -> dict:
    import lightning as L
    from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger

    class Module(L.LightningModule):
        def training_step(self, batch: Split, index: int, split: str = "train") -> Tensor:
            out, y = self.net(batch[0]), batch[1]
            loss, hits = F.cross_entropy(out, y), (out.argmax(1) == y).float().mean()
            self.log_dict(
                {f"{split}/loss": loss, f"{split}/acc": hits}, on_step=False, on_epoch=True, batch_size=len(y)
            )
            return loss

        def validation_step(self, batch: Split, index: int) -> None:
            self.training_step(batch, index, "val")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LR, fused=True)

    module, marks = Module(), []
    module.net = net
    clock = LambdaCallback(**{f"on_train_{at}": lambda *_: marks.append(time.time()) for at in ("epoch_start", "end")})
    with tempfile.TemporaryDirectory() as folder:
        keep, logs = ModelCheckpoint(monitor="val/acc", mode="max", save_last=True), TensorBoardLogger(folder)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
        trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, logger=logs, callbacks=[keep, clock], **quiet)
        trainer.fit(module, *loaders(train, val))
    return {"marks": marks, "acc": trainer.callback_metrics["val/acc"].item()}


def keras(net: nn.Module, train: Split, val: Split, epochs: int) -> dict:
    os.environ["KERAS_BACKEND"] = "torch"
    from keras import Sequential, callbacks, config, layers, losses, metrics, optimizers

    config.set_image_data_format("channels_first")  # torch's own order
    if hasattr(net, "embedding"):  # the book's LSTM
        cells = [layers.LSTM(64, dropout=0.5, return_sequences=True), layers.LSTM(64, dropout=0.5)]
        model = Sequential([layers.Input((80,), dtype="int32"), layers.Embedding(10_000, 100), *cells, layers.Dense(1)])
        loss, metric = losses.BinaryCrossentropy(from_logits=True), metrics.BinaryAccuracy("accuracy", threshold=0.0)
    else:
        maps, widths = ((6, 16), (120, 84)) if isinstance(net[0], nn.Conv2d) else ((), (256, 128))  # LeNet or MLP
        hidden = [m for n in maps for m in (layers.Conv2D(n, 3), layers.MaxPooling2D(), layers.Activation("relu"))]
        hidden += [layers.Flatten(), *(layers.Dense(width, "relu") for width in widths)]
        model = Sequential([layers.Input((1, 28, 28)), *hidden, layers.Dense(10)])
        loss, metric = losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"
    if sum(p.numel() for p in net.parameters() if p.requires_grad) != model.count_params():
        sys.exit(f"Keras's model has {model.count_params():,} parameters: not the same network")
    model.compile(optimizers.Adam(LR), loss, metrics=[metric])
    marks = []
    note = lambda *_: marks.append(time.time())  # noqa: E731
    clock = callbacks.LambdaCallback(on_epoch_begin=note, on_train_end=note)
    (x, y), judged = ([t.numpy() for t in split] for split in (train, val))
    with tempfile.TemporaryDirectory() as folder:
        keep = [callbacks.CSVLogger(f"{folder}/log.csv"), callbacks.ModelCheckpoint(f"{folder}/last.keras"), clock]
        judge = {"validation_data": judged, "validation_batch_size": EVAL_BATCH}
        history = model.fit(x, y, BATCH, epochs, verbose=0, callbacks=keep, **judge).history
    return {"marks": marks, "acc": history["val_accuracy"][-1]}


def step(net: nn.Module, train: Split, val: Split, steps: int) -> float:
    """Seconds per step of a hand-written bf16 channels_last loop."""
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    batches, started = shuffled(train[0].to(memory_format=torch.channels_last), train[1]), 0.0
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
    what, model, count = sys.argv[1:]
    found = load(f"model={model}", f"data={DATA[model]}")
    print(json.dumps(globals()[what](*found, int(count))))
