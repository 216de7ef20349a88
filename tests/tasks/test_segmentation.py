"""Segmentation: metrics against closed forms, masks that follow their images, nets, folders, resuming."""

import os
from functools import partial
from signal import SIGTERM

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from PIL import Image as PILImage
from runs import assert_same, compose, train
from torch import nn
from toys import CPU, DEVICE, Batches, composed, learn, make_update, section, seeded

from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.data.base import Arrays
from dlrun.data.images import decode
from dlrun.data.images.masks import Masks
from dlrun.data.readers.masks import KINDS, shapes
from dlrun.errors import CheckpointError, DataError, PairingError, UserError
from dlrun.models.fcn import bilinear_, fcn
from dlrun.models.unet import unet
from dlrun.models.vgg import vgg_imagenet
from dlrun.spec import Image, Mask
from dlrun.tasks.metrics import auroc, f1, iou, mcc
from dlrun.tasks.segmentation import Segment
from dlrun.train.weights import copy_weights

SPEC = Mask((3, 20, 24), classes=3)
UNET = dict(width=4, depth=2, norm="batch", dropout=0.0, init="kaiming")
FCN = dict(depth=11, width=4, head=8, norm="batch", dropout=0.0, init="kaiming")
TASK = dict(
    label_smoothing=0.0, class_weights=None, metrics=[], freeze=[], unfreeze=[], freeze_from=[], lr_multipliers=[]
)
SHAPES = dict(most=3, noise=5.0, samples=12, test_samples=5, random_state=0)
FLAT = dict(
    flip=False,
    crop=0,
    pad="black",
    cutout=0,
    rot90=False,
    rotate=0.0,
    zoom=0.0,
    shear=0.0,
    noise=0.0,
    erase=0.0,
    jitter=0.0,
    policy="none",
    policy_ops=2,
    policy_level=0.3,
)
PLAIN = dict(batch_size=4, eval_batch_size=5, val_fraction=0.25, folds=0, fold=0, mean=[0.5], std=[0.5])


def make(net: nn.Module, spec: Mask = SPEC, **keys) -> Segment:
    return Segment(net, spec, DEVICE, partial(make_update, lr=0.01), **TASK | keys)


class Whole(Batches):
    """Data that is the same in every split, unnormalised."""

    mean, std = [0.0], [1.0]


def masks(arrays: Arrays, spec: Mask, augment: dict | None = None, **keys) -> Masks:
    changes = build({"_target_": "dlrun.data.images.augment.Augment"} | FLAT | (augment or {}))
    data = Masks(spec=spec, source=lambda: arrays, augment=changes, **PLAIN | keys)
    data.load(CPU)
    return data


def drawn(samples: int = 12, spec: Mask = SPEC) -> Arrays:
    rng = np.random.RandomState(1)
    sizes = (samples, 5)
    parts = [rng.randint(0, 256, (n, *spec.shape)).astype(np.uint8) for n in sizes]
    labels = [rng.randint(0, spec.classes, (n, *spec.shape[1:])).astype(np.uint8) for n in sizes]
    return Arrays(parts[0], labels[0], parts[1], labels[1])


class Echo(nn.Module):
    """A network that returns its input: channel c of the image is the logit of class c."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


# The task


def by_hand(x: torch.Tensor, y: torch.Tensor, ignore: int | None, classes: int) -> dict:
    counted = torch.ones_like(y, dtype=torch.bool) if ignore is None else y != ignore
    found, true = x.argmax(1)[counted], y[counted]
    logs = -x.log_softmax(1).gather(1, y.clamp(max=classes - 1)[:, None])[:, 0][counted]
    ious = []
    for c in range(classes):
        both, either = ((found == c) & (true == c)).sum().item(), ((found == c) | (true == c)).sum().item()
        ious += [both / either] if either else []
    return {
        "loss": logs.double().mean().item(),
        "acc": (found == true).double().mean().item(),
        "miou": sum(ious) / len(ious),
    }


@pytest.mark.parametrize("ignore", [None, 255])
def test_metrics_by_hand(ignore):
    """Over all pixels together, independent of batches; absent classes and ignored pixels are left out."""
    with seeded(3):
        spec = Mask((4, 5, 6), classes=4, ignore=ignore)
        x, y = torch.randn(7, 4, 5, 6), torch.randint(3, (7, 5, 6))
    x[:, 3] = -9.0  # never said, never true
    if ignore is not None:
        y[:, :2] = ignore
        y[3] = ignore  # a whole image
    task, expected = make(Echo(), spec), by_hand(x, y, ignore, 4)
    for size in (7, 3):
        found = task.evaluate(Batches(x, y, spec, size), "val")
        assert found == pytest.approx(expected, rel=1e-5)
    assert set(found) == set(task.scores) and task.goal == "miou"
    report = task.report(Whole(x, y, spec, 3))
    iou = [row["iou"] for row in report.numbers["per_class"].values()]
    assert list(report.numbers["per_class"]) == ["0", "1", "2", "3"] and iou[3] is None
    assert sum(iou[:3]) / 3 == pytest.approx(expected["miou"])


def test_a_step_learns_from_counted_pixels_only():
    """Its loss is the mean over the counted pixels, and the gradient of an ignored one is 0."""
    spec = Mask((3, 4, 4), classes=3, ignore=7)
    with seeded(4):
        x, y = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(3, (2, 4, 4))
    y[0, 0], y[1, :, 1] = 7, 7
    task = make(Echo(), spec)
    seen = {}
    step = task.update.step

    def watched(loss, clock):
        seen["gradient"] = torch.autograd.grad(loss, x, retain_graph=True)[0]
        return step(loss, clock)

    task.update.step = watched
    from dlrun.clock import Clock

    metrics = task.step((x, y), Clock(0, 1, 1))
    assert metrics["loss"].item() == pytest.approx(F.cross_entropy(x, y, ignore_index=7).item(), rel=1e-5)
    gradient = seen["gradient"].abs().sum(1)
    assert not gradient[y == 7].any() and gradient[y != 7].all()


@pytest.mark.parametrize("ignore", [None, 200])
def test_weights_of_classes_count_pixels(ignore):
    """Balanced: inverse to the train masks' counted pixels. The loss is their weighted sum over their number."""
    spec = Mask((3, 20, 24), classes=3, ignore=ignore, labels=("ground", "cell", "edge"))
    arrays = drawn(12, spec)
    arrays.y_train[:, :15] = 0
    if ignore:
        arrays.y_train[:, 3] = ignore
    data = masks(arrays, spec)
    task = make(Echo(), spec, class_weights="balanced", label_smoothing=0.1)
    task.prepare(data)
    y = data.targets("train").long()
    assert torch.equal(y, torch.from_numpy(arrays.y_train).long()[data.resident.rows["train"]])
    counts = torch.bincount(y.flatten(), minlength=3)[:3]
    torch.testing.assert_close(task.class_weights, counts.sum() / 3 / counts)
    x, y = next(data.batches("train"))
    weights = task.class_weights[y.clamp(max=2)]
    each = F.cross_entropy(x, y, reduction="none", ignore_index=-100 if ignore is None else ignore, label_smoothing=0.1)
    expected = (weights * each).sum() / (y != ignore).sum() if ignore else (weights * each).mean()
    assert learn(task, (x, y), 1)[0] == pytest.approx(expected.item(), rel=1e-5)
    named = make(Echo(), spec, class_weights={"edge": 4})
    named.prepare(data)
    assert named.class_weights.tolist() == [1, 1, 4]
    with pytest.raises(UserError, match="task.class_weights: there is no class 'egde'; did you mean 'edge'"):
        make(Echo(), spec, class_weights={"egde": 4}).prepare(data)


def test_metrics_of_pixels():
    """Metrics from the counts of all pixels; skewed classes add balanced accuracy, also in a later evaluation."""
    spec = Mask((3, 20, 24), classes=3)
    arrays = drawn(12, spec)
    arrays.y_train[:, :19], arrays.y_train[:, 19, 2:] = 0, 1
    data, calls = masks(arrays, spec), [partial(f1, average="per_class"), partial(iou), partial(mcc)]
    task = make(Echo(), spec, metrics=calls)
    assert list(task.scores) == ["loss", "acc", "miou", "f1_0", "f1_1", "f1_2", "iou", "mcc"]
    task.prepare(data)
    assert task.header_lines["skewed"].endswith(
        "look at balanced_acc; to weigh all classes alike: task.class_weights=balanced"
    )
    found = task.evaluate(data, "test")
    assert list(found) == list(task.scores) and found["iou"] == pytest.approx(found["miou"], rel=1e-6)
    pairs = [(x.argmax(1), y) for x, y in data.batches("test")]
    best, y = (torch.cat(each) for each in zip(*pairs, strict=True))
    hits, either = ((best == 2) & (y == 2)).sum(), (best == 2).sum() + (y == 2).sum()
    assert found["f1_2"] == pytest.approx((2 * hits / either).item())
    later = make(Echo(), spec, metrics=calls)
    later.load_extra_state(task.extra_state())
    assert later.evaluate(data, "test") == found and "balanced_acc" in found
    with pytest.raises(
        UserError, match="task.metrics=auroc needs the probabilities of all pixels.*\n  expected acc, bal"
    ):
        make(Echo(), spec, metrics=[partial(auroc)])


def test_a_batch_without_a_counted_pixel_changes_nothing():
    spec = Mask((3, 4, 4), classes=3, ignore=7)
    task = make(Echo(), spec)
    losses = learn(task, (torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 7)), 2)
    assert losses == [0, 0] and task.net.scale == 1


def test_a_network_that_returns_too_few_classes_is_named():
    """Of masks without the last class it learned and evaluated without a word."""
    task = make(nn.Conv2d(3, 2, 1), Mask((3, 4, 4), classes=3))
    batch = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    wanted = r"conv.Conv2d returned a tensor \(2, 2, 4, 4\)\n  expected outputs \(2, 3, 4, 4\) of 2 inputs"
    with pytest.raises(UserError, match=wanted):
        learn(task, batch, 1)


@pytest.mark.thorough(but=["fcn-keys2"])
@pytest.mark.parametrize(("builder", "keys"), [(unet, UNET), (fcn, FCN | dict(stride=8)), (fcn, FCN | dict(stride=32))])
def test_a_batch_is_memorised(builder, keys):
    """FCN-32s has one score for 32x32 pixels and cannot draw outlines: its image has one class."""
    arrays = shapes(shape=[3, 32, 32], classes=3, **SHAPES | dict(samples=4))
    spec = Mask((3, 32, 32), classes=3)
    with seeded():
        net = builder(spec, **keys)
    x, y = next(masks(arrays, spec, val_fraction=0.5, batch_size=2).batches("train"))
    if keys.get("stride") == 32:
        y = torch.tensor([1, 2]).view(2, 1, 1).expand_as(y).contiguous()
    task = make(net, spec)
    losses = learn(task, (x, y), 80)
    found = task.evaluate(Batches(x, y, spec, 2), "val")
    assert losses[-1] < 0.2 * losses[0] and found["miou"] > 0.8, (losses[0], losses[-1], found)


def test_a_single_sample_without_statistics_is_refused():
    spec = Mask((3, 3, 4), classes=3)
    data = masks(drawn(12, spec), spec)  # 9 to train on, 4 at a time
    assert make(unet(spec, **UNET | dict(depth=1)), spec).steps(data) == 3
    with pytest.raises(UserError, match="data.batch_size=4 puts one of the 9 train samples into a batch alone"):
        make(unet(Mask((3, 3, 3), classes=3), **UNET), Mask((3, 3, 3), classes=3)).steps(data)


def test_preview_shows_images_masks_and_predictions():
    data = masks(drawn(), Mask((3, 20, 24), classes=3, ignore=255))
    sheet = make(Echo(), data.spec).preview(data)["masks"]
    x, y = next(data.batches("val"))
    assert sheet.shape in ((3, 20, 6 * 26 - 2), (3, 42, 6 * 26 - 2)), "with gaps of two pixels"
    torch.testing.assert_close(sheet[:, :20, :24], x[0] * 0.5 + 0.5)
    true, found = sheet[:, :20, 26:50], sheet[:, :20, 52:76]
    assert (true == found).all(0)[x[0].argmax(0) == y[0]].all()
    colours = {tuple(true[:, i, j].tolist()) for i in range(20) for j in range(24)}
    assert len(colours) == 3 and (0.0, 0.0, 0.0) in colours


# Nets


@pytest.mark.parametrize(("height", "width"), [(17, 17), (33, 47), (64, 64), (31, 90)])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_fcn_gives_a_score_for_every_pixel(stride, height, width):
    spec = Mask((3, height, width), classes=5)
    with seeded():
        net = fcn(spec, stride=stride, **FCN | dict(norm="none"))
        out = net(torch.randn(2, *spec.shape))
    assert out.shape == (2, 5, height, width)


@pytest.mark.parametrize(("depth", "least"), [(1, 2), (2, 3), (4, 9)])
def test_unet_takes_any_size_that_it_can_halve(depth, least):
    for height, width in ((least, least), (least + 8, least + 21)):
        with seeded():
            net = unet(Mask((1, height, width), classes=2), **UNET | dict(depth=depth, norm="none"))
            assert net(torch.randn(2, 1, height, width)).shape == (2, 2, height, width)
    with pytest.raises(
        UserError, match=f"unet cannot take images of {least - 1}x90.*expected at least {least}x{least}"
    ):
        unet(Mask((1, least - 1, 90), classes=2), **UNET | dict(depth=depth))


def test_fcn_is_refused_by_name():
    with pytest.raises(UserError, match="fcn16s cannot take images of 16x40: .*17x17.*model=unet"):
        fcn(Mask((1, 16, 40), classes=2), stride=16, **FCN)


def test_published_parameters():
    """U-Net: 31,030,593 with one score for a pixel of grey images (65 more for two); FCN-VGG16: 134 M, table 1."""
    with torch.device("meta"):
        net = build(section("model", "unet"))(Mask((1, 572, 572), classes=2))
        large = build(section("model", "fcn32s"))(Mask((3, 500, 500), classes=21))
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23, "as the paper says"
    assert sum(p.numel() for p in net.parameters()) == 31_030_593 + 65
    dense = sum(p.numel() for name, p in large.named_parameters() if not name.startswith("score"))
    assert dense == 138_357_544 - 4096 * 1000 - 1000  # VGG16's without its last layer
    assert round(sum(p.numel() for p in large.parameters()) / 1e6) == 134


def test_the_backbone_of_fcn_equals_vgg():
    """Names and shapes of `features`, so that weights of VGG16 fit."""
    with torch.device("meta"):
        mine = build(section("model", "fcn8s"))(Mask((3, 64, 64), classes=21)).features.state_dict()
        keys = dict(depth=16, width=64, pool="grid", head=[4096], norm="none", dropout=0.0, init="torch")
        theirs = vgg_imagenet(Image((3, 64, 64), classes=10), **keys).features.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}


def small_fcn(stride: int, classes: int, seed: int) -> nn.Module:
    with seeded(seed):
        return fcn(Mask((3, 32, 32), classes=classes), stride=stride, **FCN)


def test_an_fcn_starts_from_a_vgg_and_from_another_fcn():
    with seeded(1):
        keys = dict(depth=11, width=4, pool="grid", head=[8], norm="batch", dropout=0.0, init="torch")
        vgg = vgg_imagenet(Image((3, 32, 32), classes=10), **keys)
    for theirs in (vgg, small_fcn(32, 3, 2), small_fcn(8, 5, 2)):
        mine, loaded = small_fcn(8, 3, 0), theirs.state_dict()
        note = copy_weights(mine, loaded, 3, "init=x")
        state = mine.state_dict()
        assert all(torch.equal(state[name], loaded[name]) for name in state if name.startswith("features."))
        assert "new, because the head differs: " in note and ("classifier.0.weight" in note) == (theirs is vgg)
    with pytest.raises(CheckpointError, match="the weights are another model's"):
        copy_weights(small_fcn(8, 3, 0), small_fcn(8, 5, 0).state_dict(), None, "init=x")
    deeper = fcn(Mask((3, 32, 32), classes=3), stride=8, **FCN | dict(depth=13))
    with pytest.raises(CheckpointError, match="features"):
        copy_weights(deeper, loaded, 3, "init=x")


def test_the_head_of_an_fcn_is_all_after_its_backbone():
    task = make(small_fcn(8, 3, 0), freeze=["*", "!head"])
    learns = {name for name, p in task.net.named_parameters() if p.requires_grad}
    assert learns == {name for name, _ in task.net.named_parameters() if not name.startswith("features.")}
    assert any(name.startswith("score.") for name in learns) and any(name.startswith("ups.") for name in learns)
    before = {name: p.detach().clone() for name, p in task.net.named_parameters()}
    learn(task, (torch.rand(4, 3, 32, 32), torch.randint(3, (4, 32, 32))), 2)
    changed = {name for name, p in task.net.named_parameters() if not torch.equal(p, before[name])}
    assert changed == learns, "a step moves the head alone"


@pytest.mark.parametrize(("builder", "keys"), [(unet, UNET), (fcn, FCN | dict(stride=8))])
def test_scores_start_small_and_not_alike(builder, keys):
    """Not by the fan out of so few classes, which makes them large; nor from zero, which leaves the classes alike."""
    spec = Mask((3, 32, 32), classes=2)
    with seeded():
        net = builder(spec, **keys | dict(width=16, norm="none"))
    for layer in (net.score, *getattr(net, "skips", [])):
        expected = (2 / layer.in_channels) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.5) and not layer.bias.any()


def test_steps_up_start_as_bilinear_interpolation():
    up = nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=False)
    bilinear_(up.weight)
    x = torch.randn(1, 2, 5, 6)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(up(x)[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])  # borders see zeros


# Data


def test_masks_turn_with_their_images():
    """An image that encodes its mask still does so after augmentation of both; empty pixels are ignored."""
    spec = Mask((1, 12, 12), classes=3, ignore=9)
    arrays = drawn(spec=spec)
    coded = Arrays(100 * arrays.y_train[:, None] + 50, arrays.y_train, 100 * arrays.y_test[:, None] + 50, arrays.y_test)
    data = masks(coded, spec, dict(flip=True, rot90=True, crop=3), mean=[0.0], std=[1 / 255])
    plain = masks(coded, spec, mean=[0.0], std=[1 / 255])
    changed = 0
    for (x, y), (_, before) in zip(data.batches("train"), plain.batches("train"), strict=True):
        assert x.dtype == torch.float32 and y.dtype == torch.int64 and y.shape == x[:, 0].shape
        counted = y != 9
        torch.testing.assert_close(x[:, 0], torch.where(counted, 100.0 * y + 50, 0.0))
        assert (~counted).any() and counted.any()
        changed += (y != before).sum()
    assert changed > 0
    for x, y in data.batches("val"):  # nothing is changed where it does not train
        torch.testing.assert_close(x[:, 0], 100.0 * y + 50)


def test_colours_change_without_the_masks():
    arrays = drawn()
    changed, plain = (list(masks(arrays, SPEC, augment).batches("train")) for augment in (dict(hue=0.3), None))
    for (x, y), (before, same) in zip(changed, plain, strict=True):
        assert torch.equal(y, same) and not torch.equal(x, before)


def test_images_are_normalised_and_masks_whole_in_all_splits():
    arrays = drawn()
    data = masks(arrays, SPEC, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    x, y = (torch.cat(column) for column in zip(*data.batches("test"), strict=True))
    expected = (torch.from_numpy(arrays.x_test) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(3, 1, 1)
    torch.testing.assert_close(x, expected)
    assert torch.equal(y, torch.from_numpy(arrays.y_test).long())
    assert [data.size(part) for part in ("train", "val", "test")] == [9, 3, 5]


def test_an_epoch_resumes_at_any_batch():
    data = masks(drawn(), SPEC, dict(flip=True, crop=2, noise=0.1))
    whole = list(data.batches("train", 5, 1))
    for first in range(len(whole)):
        rest = list(data.batches("train", 5, 1, first))
        assert all(
            torch.equal(a, b) for u, v in zip(whole[first:], rest, strict=True) for a, b in zip(u, v, strict=True)
        )


def test_shapes_are_reproducible_and_complete():
    keys = SHAPES | dict(samples=80)
    a, b = (shapes(shape=[3, 24, 32], classes=6, **keys) for _ in range(2))
    assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))
    assert a.x_train.shape == (80, 3, 24, 32) and a.y_train.shape == (80, 24, 32)
    share = np.bincount(a.y_train.ravel(), minlength=6) / a.y_train.size
    assert len(share) == 1 + len(KINDS) and (share > 0.005).all() and share[0] > 0.4
    quiet = shapes(shape=[1, 24, 32], classes=2, **keys | dict(noise=0.0, most=1))
    for x, y in zip(quiet.x_train[:, 0], quiet.y_train, strict=True):
        assert not y.any() or np.ptp(x[y == 1]) == np.ptp(x[y == 0]) == 0
        assert not y.any() or abs(int(x[y == 1][0]) - int(x[y == 0][0])) >= 60
    with pytest.raises(DataError, match="data.spec.shape=.* data.spec.classes=7: expected .* 2 to 6 classes"):
        shapes(shape=[3, 24, 32], classes=7, **keys)


@pytest.fixture
def folder(tmp_path):
    """Ten images of 30x20 pixels whose red is 100 times the class of their palette mask; 255: not counted."""
    rng = np.random.RandomState(0)
    for name in ("images", "masks"):
        (tmp_path / name / "deep").mkdir(parents=True)
    for i in range(10):
        y = np.kron(rng.randint(0, 3, (2, 3)), np.ones((10, 10))).astype(np.uint8)
        x = np.stack([100 * y, 0 * y, 0 * y], 2)
        y[0, 0] = 255
        mask = PILImage.fromarray(y)
        mask.putpalette(rng.randint(0, 256, 768).astype(np.uint8).tobytes())
        name = f"deep/{i}" if i % 2 else str(i)
        PILImage.fromarray(x).save(tmp_path / "images" / f"{name}.bmp")
        mask.save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def read(folder, shape=(3, 20, 30), classes=3, ignore=255, **keys):
    given = {"root": str(folder), "values": [], "max_pixels": 10**6, "test_fraction": 0.2} | keys
    words = [
        "data_dir=/nowhere",
        "data.mean=[0.5]",
        "data.std=[0.5]",
        f"data.spec.shape={list(shape)}",
        f"data.spec.classes={classes}",
    ]
    words += [f"data.{key}={value}" for key, value in given.items()]
    words.append(f"data.spec.ignore={'null' if ignore is None else ignore}")
    config = OmegaConf.to_container(OmegaConf.create(composed("data=mask_folder", "model=unet", *words)), resolve=True)
    return build(config["data"]).source()


def test_pairs_of_images_and_masks_are_read_from_a_folder(folder):
    found = read(folder)
    assert (len(found.x_train), len(found.x_test)) == (8, 2)
    for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert (y[:, 0, 0] == 255).all() and (y[:, 5:, 5:] < 3).all()
        assert np.array_equal(x[:, 0, 5:, 5:], 100 * y[:, 5:, 5:])
    smaller = read(folder, shape=[1, 10, 10])  # covered, and cropped in the middle
    assert smaller.x_train.shape == (8, 1, 10, 10) and set(np.unique(smaller.y_train)) <= {0, 1, 2, 255}
    data = masks(found, Mask((3, 20, 30), 3, ignore=255))
    assert sum(len(x) for x, _ in data.batches("test")) == 2


def test_images_are_read_as_they_are_for_predictions(folder):
    """Transparent pixels, 16 bits, large JPEGs."""
    rng = np.random.RandomState(0)
    odd = {
        "0.png": PILImage.fromarray(rng.randint(0, 256, (20, 30, 4), dtype=np.uint8)),
        "2.png": PILImage.fromarray(rng.randint(0, 2**16, (20, 30)).astype(np.uint16)),
        "4.jpg": PILImage.fromarray(rng.randint(0, 256, (200, 300, 3), dtype=np.uint8)),
    }
    for name, image in odd.items():
        (folder / "images" / f"{name[0]}.bmp").unlink()
        image.save(folder / "images" / name)
    with PILImage.open(folder / "masks" / "4.png") as mask:
        mask.resize((300, 200), PILImage.Resampling.NEAREST).save(folder / "masks" / "4.png")
    found = read(folder)
    there = {x.tobytes() for x in (*found.x_train, *found.x_test)}
    assert {decode.read(folder / "images" / name, (3, 20, 30), "cover").tobytes() for name in odd} <= there


def test_masks_with_other_values_are_mapped(folder):
    for path in (folder / "masks").rglob("*.png"):
        y = np.asarray(PILImage.open(path))
        PILImage.fromarray(np.where(y == 1, 255, 0).astype(np.uint8)).convert("1" if "deep" in str(path) else "L").save(
            path
        )
    found = read(folder, classes=2, ignore=None, values=[0, 255])
    assert set(np.unique(found.y_train)) == {0, 1}
    with pytest.raises(DataError, match=r"holds 255: expected 0, 1\n  set .* or data.values"):
        read(folder, classes=2, ignore=None)


def damage(folder, what):
    masks, first = folder / "masks", folder / "masks" / "0.png"
    if what == "alone":
        first.unlink()
    elif what == "no image":
        (folder / "images" / "0.bmp").unlink()
    elif what == "broken":
        first.write_bytes(first.read_bytes()[:60])
    elif what == "empty":
        for path in masks.rglob("*.png"):
            path.unlink()
    else:
        with PILImage.open(first) as mask:
            if what == "colours":
                mask.convert("RGB").save(first)
            elif what == "size":
                mask.crop((0, 0, 20, 20)).save(first)
            elif what == "twice":
                mask.save(masks / "0.bmp")
            else:
                PILImage.fromarray(np.asarray(mask)).save(masks / "0.jpg")
                first.unlink()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("alone", r"no mask for 1 file: \S*/images/0.bmp\n  expected an image in \S*images and a mask in \S*masks"),
        ("no image", r"no image for 1 file: \S*/masks/0.png"),
        ("colours", r"masks/0.png is an image of mode RGB: expected a palette or grey image, whose numbers"),
        ("size", r"images/0.bmp has 20x30 pixels, its mask \S*masks/0.png has 20x20: expected the same"),
        ("broken", r"images/0.bmp with 0.png: cannot be read: .*\n  repair or remove both"),
        ("twice", r"masks/0.bmp and 0.png have the same name: expected one file for each name"),
        (
            "jpeg",
            r"masks/0.jpg holds .* \(JPEG changes numbers: use PNG for masks\): expected 0, 1, 2, 255\n  set data.spec",
        ),
        ("empty", r"masks has no images\n  expected a folder of .bmp, "),
    ],
)
def test_bad_folders_are_reported(folder, what, text):
    damage(folder, what)
    with pytest.raises(DataError, match=text):
        read(folder)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_only_regular_files_are_read(folder, part):
    (path := next((folder / part).glob("0.*"))).unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"images/0.bmp with 0.png: cannot be read: .*is a FIFO\n  repair or remove"):
        read(folder)


def test_files_that_systems_leave_in_a_folder_are_no_pairs(folder):
    before = read(folder)
    for part, suffix in (("images", "bmp"), ("masks", "png")):
        content = next((folder / part).glob("0.*")).read_bytes()
        for name in ("._0", ".ipynb_checkpoints/0-checkpoint", "__MACOSX/0"):
            (folder / part / name).parent.mkdir(exist_ok=True)
            (folder / part / f"{name}.{suffix}").write_bytes(content)
    assert all(np.array_equal(a, b) for a, b in zip(before[:4], read(folder)[:4], strict=True))


def test_folders_are_the_splits(folder):
    """images/train and masks/train, or train/images and train/masks."""
    whole = len(read(folder).x_train) + len(read(folder).x_test)
    for part in ("images", "masks"):
        (folder / part / "deep").rename(folder / part / "train")
        (folder / part / "val").mkdir()
        for path in (folder / part).glob("*.*"):
            path.rename(folder / part / "val" / path.name)
    inside = read(folder)
    deep = len(list((folder / "images" / "train").iterdir()))
    assert len(inside.x_train) + len(inside.x_test) == whole and inside.num_val == whole - deep
    assert inside.split_note == "the folders train/, val/; test: cut from train/"
    for split in ("train", "val"):
        (folder / split).mkdir()
        for part in ("images", "masks"):
            (folder / part / split).rename(folder / split / part)
    for part in ("images", "masks"):
        (folder / part).rmdir()
    outside = read(folder)
    assert all(np.array_equal(a, b) for a, b in zip(inside[:4], outside[:4], strict=True))
    assert outside[5:] == inside[5:]


def test_images_with_more_than_8_bits_are_scaled(folder):
    """One range for all of the set; predictions take it from the checkpoint."""
    before = read(folder, shape=[1, 20, 30])
    for path in list((folder / "images").rglob("*.bmp")):
        grey = np.asarray(PILImage.open(path).convert("L"))
        PILImage.fromarray((grey / 255).astype(np.float32)).save(path.with_suffix(".tif"))
        path.unlink()
    found = read(folder, shape=[1, 20, 30])
    assert np.array_equal(before.x_train, found.x_train) and found.levels == {"real": (0.0, 1.0)} and not before.levels
    data = masks(found, Mask((1, 20, 30), 3, ignore=255))
    assert data.fitted() == {"levels": {"real": [0.0, 1.0]}} and "from 0 to 1 were scaled" in data.describe()


def test_bad_keys_are_reported(folder):
    with pytest.raises(DataError, match=r"masks/\S* holds 2: expected 0, 1, 255\n  set data.spec.classes"):
        read(folder, classes=2)
    with pytest.raises(UserError, match=r"data.values=\[0, 0, 1\]: expected 3 different numbers up to 255"):
        read(folder, values=[0, 0, 1])
    with pytest.raises(DataError, match="data.test_fraction=1.0 of 10 images leaves a split empty"):
        read(folder, test_fraction=1.0)
    with pytest.raises(
        UserError, match="data.augment.policy=trivial changes colours, and masks have none: expected none"
    ):
        masks(drawn(), SPEC, augment=dict(policy="trivial"))
    with pytest.raises(UserError, match="data.augment.zoom=0.2 blends neighbouring pixels, and the classes of masks"):
        masks(drawn(), SPEC, augment=dict(zoom=0.2))
    with pytest.raises(UserError, match="data.spec.ignore=1: expected a number from 3 to 255, which is no class"):
        masks(drawn(), Mask((3, 20, 24), 3, ignore=1))
    with pytest.raises(DataError, match="the train masks hold 2: expected 0 .. 1, or 200 for pixels that are not"):
        masks(drawn(), Mask((3, 20, 24), 2, ignore=200))
    with pytest.raises(UserError, match="data.spec.labels has 2 names, data.spec.classes=3: expected one each, or"):
        make(Echo(), Mask((3, 20, 24), 3, labels=("a", "b")))


# Pairing and runs


@pytest.mark.parametrize(
    ("overrides", "first", "fitting"),
    [
        (
            ["model=unet", "data=cifar10"],
            "model=unet cannot learn from data=cifar10",
            "data for unet: mask_folder, shapes",
        ),
        (
            ["model=resnet18", "data=shapes"],
            "model=resnet18 cannot learn from data=shapes",
            "fcn16s, fcn32s, fcn8s, unet",
        ),
        (
            ["model=unet", "task=supervised"],
            "task=supervised cannot learn from data=shapes",
            "tasks for shapes: segment",
        ),
        (["task=segment", "data=mnist"], "task=segment cannot learn from data=mnist", "mask_folder, shapes"),
        (["task=ppo", "data=mnist"], "task=ppo cannot learn from data=mnist", "cartpole, gym"),
    ],
)
def test_pairs_that_do_not_fit_are_reported_with_those_that_do(overrides, first, fitting):
    with pytest.raises(PairingError) as error:
        compose(*overrides)
    lines = str(error.value).splitlines()
    assert lines[0] == first and any(fitting in " ".join(line.split()) for line in lines)


@pytest.mark.thorough(but=["fcn8s-bf16"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["unet", "fcn8s"])
def test_a_stopped_run_resumes_to_the_bit(model, precision, tmp_path):
    small = ["model.width=4", *["model.head=8"] * (model == "fcn8s"), "data.batch_size=4", "data.spec.shape=[3,20,24]"]
    small += ["data.source.samples=14", "data.source.test_samples=4", "data.val_fraction=0.3", "model.norm=batch"]
    small += ["data.augment.flip=true", "data.augment.crop=2", "data.spec.ignore=255", "trainer.epochs=2"]
    config = compose(f"model={model}", *small, f"trainer.precision={precision}", "trainer.checkpoint_gap=0")
    train(tmp_path / "a", config)
    assert train(tmp_path / "b", config, signals={3: SIGTERM}).number == SIGTERM
    assert train(tmp_path / "b", config, resumed=True, finish=precision == "fp32").reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")
    if precision == "fp32":
        assert (tmp_path / "b" / "plots" / "masks.png").is_file() and (tmp_path / "b" / "plots" / "miou.png").is_file()


def test_the_configs_are_checked():
    config, names = compose("model=unet", "data=mask_folder", "data.spec.ignore=255")
    assert config["data"]["spec"]["ignore"] == 255
    check(config, names)
