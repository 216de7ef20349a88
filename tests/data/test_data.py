"""Batches on the device: orders, positions, splits, normalisation, augmentation, and data that contradicts its spec."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from toys import CPU, read

from dlrun.config.pairing import CONFIGS
from dlrun.data import resident
from dlrun.data.base import Arrays, AugmentContext
from dlrun.data.images.augment import Augment
from dlrun.data.images.images import Images
from dlrun.data.splits import split_rows
from dlrun.data.table.tables import Tables
from dlrun.errors import DataError, UserError
from dlrun.seeds import generator
from dlrun.spec import Image, Table
from dlrun.train.data_state import data_state, is_same_data

NOTHING = dict(
    flip=False,
    crop=0,
    pad="black",
    rot90=False,
    rotate=0.0,
    zoom=0.0,
    shear=0.0,
    cutout=0,
    erase=0.0,
    noise=0.0,
    jitter=0.0,
    saturation=0.0,
    hue=0.0,
    policy="none",
    policy_ops=2,
    policy_level=0.3,
)
EVERYTHING = dict(
    flip=True,
    crop=2,
    pad="reflect",
    rot90=True,
    rotate=20.0,
    zoom=0.2,
    shear=0.1,
    cutout=3,
    erase=0.5,
    noise=0.1,
    jitter=0.2,
    saturation=0.3,
    hue=0.2,
    policy="rand",
    policy_ops=3,
    policy_level=0.4,
)
SAMPLES, TESTS = 90, 14


def random_images(channels: int = 3, samples: int = SAMPLES) -> Arrays:
    """Noise; the label of a sample is its row; test samples continue the count."""
    rng = np.random.RandomState(0)
    x = rng.randint(0, 256, (samples + TESTS, channels, 6, 6)).astype(np.uint8)
    y = np.arange(samples + TESTS)
    return Arrays(x[:samples], y[:samples], x[samples:], y[samples:])


def images(arrays: Arrays | None = None, channels_last: bool = False, augment: dict | None = None, **keys) -> Images:
    arrays = arrays or random_images()
    channels = arrays.x_train.shape[1]
    defaults = dict(
        spec=Image((channels, 6, 6), classes=SAMPLES + TESTS),
        source=lambda: arrays,
        batch_size=4,
        eval_batch_size=5,
        val_fraction=0.2,
        folds=0,
        sampler="none",
        fold=0,
        mean=[0.5] * channels,
        std=[0.25] * channels,
        augment=Augment(**NOTHING | (augment or {})),
    )
    data = Images(**defaults | keys)
    data.load(CPU, channels_last)
    return data


def tables(x: np.ndarray, y: np.ndarray, spec: Table, **keys) -> Tables:
    arrays = Arrays(x[:-4], y[:-4], x[-4:], y[-4:])
    keys = (
        dict(batch_size=8, eval_batch_size=5, val_fraction=0.25, folds=0, fold=0, sampler="none", standardize=True)
        | keys
    )
    data = Tables(spec=spec, source=lambda: arrays, **keys)
    data.load(CPU)
    return data


def labels(batches) -> list[int]:
    return [label for _, y in batches for label in y.tolist()]


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


# Orders and positions


def test_an_epoch_visits_each_row_once():
    data = images()
    first = labels(data.batches("train", 0, 0))
    assert len(first) == len(set(first)) == data.size("train") == 72
    orders = [first, *(labels(data.batches("train", *place)) for place in [(0, 1), (0, 2), (1, 0), (1, 1)])]
    assert all(sorted(order) == sorted(first) for order in orders)
    assert len(set(map(tuple, orders))) == 5, "another epoch or seed, another order"
    assert first == labels(data.batches("train", 0, 0)) == labels(images().batches("train", 0, 0))


@pytest.mark.thorough(
    but=[
        "plain-1-1",
        "plain-1-4",
        "plain-1-7",
        "plain-1-72",
        "plain-1-100",
        "plain-1296-1",
        "plain-1296-4",
        "plain-1296-7",
        "plain-1296-72",
        "plain-1296-100",
        "plain-3780-1",
        "plain-3780-4",
        "plain-3780-7",
        "plain-3780-72",
        "plain-3780-100",
        "plain-524288-1",
        "plain-524288-4",
        "plain-524288-7",
        "plain-524288-72",
        "plain-524288-100",
        "augmented-524288-1",
        "augmented-524288-4",
        "augmented-524288-7",
        "augmented-524288-72",
        "augmented-524288-100",
    ]
)
@pytest.mark.parametrize("batch_size", [1, 4, 7, 72, 100])
@pytest.mark.parametrize("chunk", [1, 3 * 4 * 108, 5 * 7 * 108, 2**19])
@pytest.mark.parametrize("augment", [NOTHING, EVERYTHING], ids=["plain", "augmented"])
def test_starting_in_mid_epoch_gives_the_remaining_batches(monkeypatch, batch_size, chunk, augment):
    monkeypatch.setattr(resident, "CHUNK_VALUES", chunk)
    data = images(batch_size=batch_size, augment=augment)
    whole = list(data.batches("train", 3, 5))
    assert len(whole) == -(-72 // batch_size)
    assert [len(y) for _, y in whole[:-1]] == [batch_size] * (len(whole) - 1)
    for first in range(0, len(whole) + 1, max(1, len(whole) // 8)):  # also at the end, where nothing remains
        assert same(data.batches("train", 3, 5, first), whole[first:]), first


def test_augmentation_differs_from_epoch_to_epoch():
    data = images(augment=dict(noise=0.1))
    epochs = [
        {y: x for xs, ys in data.batches("train", 0, epoch) for x, y in zip(xs, ys.tolist(), strict=True)}
        for epoch in (0, 1)
    ]
    assert not any(torch.equal(epochs[0][label], epochs[1][label]) for label in epochs[0])


def test_augmentation_differs_from_chunk_to_chunk(monkeypatch):
    monkeypatch.setattr(resident, "CHUNK_VALUES", 1)  # a batch each
    arrays = random_images()
    arrays = arrays._replace(x_train=np.zeros_like(arrays.x_train))
    arrays.x_train[-1, 0, 0, 0] = 1  # images of one colour are refused
    first, *rest = (x for x, _ in images(arrays, augment=dict(noise=0.1)).batches("train"))
    assert not any(torch.equal(first[0], x[0]) for x in rest)


# Splits


def test_the_splits_hold_all_rows():
    one = images()
    parts = {split: labels(one.batches(split)) for split in ("val", "test")}
    parts["train"] = labels(one.batches("train", 0, 0))
    assert sorted(parts["train"] + parts["val"]) == list(range(SAMPLES))
    assert parts["test"] == list(range(SAMPLES, SAMPLES + TESTS))
    assert parts["val"] == sorted(parts["val"]) and len(parts["val"]) == one.size("val") == 18
    assert parts["val"] != list(range(18)), "shuffled"
    other = images(batch_size=9, augment=EVERYTHING)
    assert labels(other.batches("val", seed=7, epoch=3)) == parts["val"], "not the run's seed's"


def test_folds_partition_the_training_split():
    held = []
    for fold in range(5):
        data = images(folds=5, fold=fold)
        val, train = labels(data.batches("val")), labels(data.batches("train", 0, 0))
        assert not set(val) & set(train) and len(val) + len(train) == SAMPLES
        held += val
    assert sorted(held) == list(range(SAMPLES))
    sizes = [len(split_rows(10, 0.5, 3, fold)["val"]) for fold in range(3)]
    assert sizes == [4, 3, 3]


@pytest.mark.parametrize(
    ("split", "text"),
    [
        ((0.2, 1, 0), r"data.folds=1 data.fold=0: expected folds >= 2 \(or 0: none\) and fold in 0 .. folds - 1"),
        ((0.2, 5, 5), "data.folds=5 data.fold=5: expected folds >= 2"),
        ((0.2, 0, 2), "data.folds=0 data.fold=2: expected folds >= 2"),
        ((0.2, 11, 0), "data.folds=11 of 10 samples leaves a split empty: expected at most 10 folds"),
        ((0.04, 0, 0), "data.val_fraction=0.04 of 10 samples leaves a split empty"),
        ((1.0, 0, 0), "data.val_fraction=1.0 of 10 samples leaves a split empty"),
    ],
)
def test_impossible_splits_are_refused(split, text):
    with pytest.raises(UserError, match=text):
        split_rows(10, *split)


# Batches


def test_images_are_normalised_by_mean_and_std():
    arrays = random_images()
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    data = images(arrays, mean=mean, std=std)
    assert data.resident.x["train_arrays"].dtype == data.resident.x["test"].dtype == torch.uint8
    assert "as uint8" in data.describe()
    pixels = np.concatenate([arrays.x_train, arrays.x_test]) / 255
    plain = torch.from_numpy((pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))).float()
    for split in ("train", "val", "test"):
        for x, y in data.batches(split):
            assert x.dtype == torch.float32
            torch.testing.assert_close(x, plain[y], atol=1e-6, rtol=0)
    x, _ = next(data.batches("test"))
    assert torch.equal(data.encode(torch.from_numpy(arrays.x_test)[: len(x)]), x), "new images as the stored ones"
    for x, y in images(arrays, mean=[0.25], std=[0.5]).batches("val"):  # one for all channels
        torch.testing.assert_close(x, torch.from_numpy(pixels / 0.5 - 0.5).float()[y], atol=1e-6, rtol=0)
    for x, y in images(arrays, mean=[0.0], std=[1.0]).batches("val"):
        torch.testing.assert_close(x, torch.from_numpy(pixels).float()[y], atol=1e-6, rtol=0)


@pytest.mark.parametrize("keys", [dict(mean=[0.5, 0.5], std=[1.0, 1.0]), dict(mean=[0.5]), dict(mean=[], std=[])])
def test_one_mean_per_channel_is_required(keys):
    with pytest.raises(
        UserError, match=r"data.mean=.* data.std=.*: expected one number each, or one per channel \(3\)"
    ):
        images(**keys)


def test_a_data_sets_mean_and_std_are_its_own():
    """The values in the configs are those of the training images; for digits they can be checked here."""
    from dlrun.data.readers.images import digits

    pixels, config = digits().x_train / 255, read(CONFIGS / "data" / "digits.yaml")
    assert [pixels.mean(), pixels.std()] == pytest.approx([config["mean"][0], config["std"][0]], abs=2e-3)


@pytest.mark.parametrize(
    "augment", [NOTHING, *({key: EVERYTHING[key]} for key in EVERYTHING), EVERYTHING], ids=lambda a: "+".join(a)
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_changes_no_value(channels_last, augment):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    data = images(channels_last=channels_last, augment=augment)
    for split in ("train", "val", "test"):
        assert all(x.is_contiguous(memory_format=layout) for x, _ in data.batches(split))
    assert all(
        torch.equal(x, u)
        for (x, _), (u, _) in zip(images(augment=augment).batches("train"), data.batches("train"), strict=True)
    ), "the layout changes no value"


def test_tables_are_standardised_by_the_training_split():
    rng = np.random.RandomState(0)
    x = (rng.randn(44, 3) * [1, 10, 100] + [5, 0, -3]).astype(np.float32)
    x[:, 2] = 0.1  # a column that never changes
    y = rng.randn(44, 1).astype(np.float32)
    data = tables(x, y, Table(features=3, targets=1))
    train = torch.cat([x for x, _ in data.batches("train")])
    torch.testing.assert_close(train.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)  # n - 1
    rows = split_rows(40, 0.25, 0, 0)["train"]
    plain = (x[-4:] - x[rows].mean(0)) / np.r_[x[rows].std(0, ddof=1)[:2], 1]
    (test, targets), *rest = data.batches("test")
    torch.testing.assert_close(test, torch.from_numpy(plain).float(), atol=1e-5, rtol=0)
    assert not rest and torch.equal(targets, torch.from_numpy(y[-4:]))
    assert torch.equal(data.encode(x[-4:]), test), "new rows are scaled as the train part's"
    raw = tables(x, y, Table(features=3, targets=1), standardize=False)
    assert torch.equal(next(raw.batches("test"))[0], torch.from_numpy(x[-4:]))


@pytest.mark.parametrize("which", ["x_train", "y_train", "x_test", "y_test"])
def test_every_number_is_in_the_digest(which):
    """A run is not resumed on other numbers, but on numbers that another machine rounds differently."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 3)).astype(np.float32), rng.normal(size=(600, 1)).astype(np.float32)
    plain = Arrays(x[:500], y[:500], x[500:], y[500:])

    def described(change) -> dict:
        arrays = plain._replace(**{which: change(getattr(plain, which).copy())})
        data = Tables(
            spec=Table(3, targets=1), source=lambda: arrays, batch_size=8, eval_batch_size=5, val_fraction=0.25,
            folds=0, fold=0, sampler="none", standardize=False,
        )  # fmt: skip
        data.load(CPU)
        return data_state(data)

    def one(array):
        array[7, 0] += 0.001
        return array

    before = described(lambda array: array)
    assert is_same_data(before, described(lambda array: np.nextafter(array, np.float32(9)))), "rounded otherwise"
    for change in (one, lambda array: array * 1.001, lambda array: array[::-1].copy(), lambda array: -array):
        assert not is_same_data(before, described(change))
    assert is_same_data({key: before[key] for key in ("data", "digest")}, described(one)), (
        "a checkpoint of an older version"
    )


def test_every_pixel_is_in_the_digest():
    arrays, keys = random_images(samples=300), {"spec": Image((3, 6, 6), classes=400)}
    before = data_state(images(arrays, **keys))
    arrays.x_train[split_rows(300, 0.2, 0, 0)["train"][1], 0, 0, 0] ^= 1  # the digest itself reads every third image
    after = data_state(images(arrays, **keys))
    assert before["digest"] == after["digest"] and not is_same_data(before, after)


def test_wide_targets_are_warned_of():
    x, y = np.arange(40, dtype=np.float32)[:, None], np.arange(40, dtype=np.float32)[:, None]
    assert "warning" not in tables(x, y, Table(1, targets=1)).describe()
    description = tables(x, 1000 * y, Table(1, targets=1)).describe()
    assert "; warning: the targets' standard deviation is 10," in description.replace("11,", "10,").replace(
        "12,", "10,"
    )


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("which", ["x_train", "y_test"])
def test_numbers_that_are_not_finite_are_refused(value, which):
    x, y = np.ones((40, 2), np.float32), np.ones((40, 1), np.float32)
    {"x_train": x, "y_test": y}[which][-1 if which == "y_test" else 0] = value
    part = which.partition("_")[2]
    with pytest.raises(
        DataError, match=f"the {part} split holds numbers that are not finite\n  expected numbers up to 3.4e"
    ):
        tables(x, y, Table(2, targets=1))


@pytest.mark.parametrize("labels", [("a",) * 3, ("a", "b", "a")])
def test_class_names_must_be_unique(labels):
    arrays = random_images()
    with pytest.raises(UserError, match="data.spec.labels has 'a' more than once: expected each class once"):
        images(arrays, spec=Image((3, 6, 6), 3, labels))
    with pytest.raises(UserError, match="data.spec.labels has 'a' more than once"):
        tables(np.ones((40, 2), np.float32), np.ones(40, np.int64), Table(2, 3, labels=labels))


def test_an_outlier_in_a_constant_column_stays_finite():
    x, y = np.full((44, 1), 0.1, np.float32), np.zeros((44, 1), np.float32)
    x[-1] = 0.7
    assert next(tables(x, y, Table(features=1, targets=1)).batches("test"))[0].abs().max() < 1


# Augmentation


def augmented(x: torch.Tensor, seed: int = 0, values: bool = False, **keys) -> torch.Tensor:
    augment = Augment(**NOTHING | keys)
    context = AugmentContext(generator(CPU, seed), seed, 0, torch.arange(len(x)))
    return augment.on_values(x, context) if values else augment.on_bytes(x, context)


BYTES = torch.from_numpy(random_images(2, 200).x_train)


def test_flip_is_its_own_inverse():
    out = augmented(BYTES, flip=True)
    flipped = (out != BYTES).flatten(1).any(1)
    assert 0.35 < flipped.float().mean() < 0.65
    assert torch.equal(out[flipped].flip(3), BYTES[flipped])
    assert torch.equal(augmented(out, flip=True), BYTES), "the same coins once more"


def test_crop_is_a_window_with_black_around():
    out, pad = augmented(BYTES, crop=2), torch.zeros(2, 10, 10, dtype=torch.uint8)
    shifts = []
    for image, cropped in zip(BYTES, out, strict=True):
        pad[:, 2:8, 2:8] = image
        windows = pad.unfold(1, 6, 1).unfold(2, 6, 1).movedim(0, 2)  # (5, 5, C, H, W)
        found = (windows == cropped).flatten(2).all(2).nonzero().tolist()
        assert len(found) == 1
        shifts.append(tuple(found[0]))
    assert len(set(shifts)) == 25, "every shift comes, the farthest too"


def test_crop_is_a_window_of_the_reflection():
    out = augmented(BYTES, crop=2, pad="reflect")
    pads = torch.nn.functional.pad(BYTES.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    shifts = set()
    for padded, cropped in zip(pads, out, strict=True):
        windows = padded.unfold(1, 6, 1).unfold(2, 6, 1).movedim(0, 2)  # (5, 5, C, H, W)
        found = (windows == cropped).flatten(2).all(2).nonzero().tolist()
        assert len(found) == 1
        shifts.add(tuple(found[0]))
    assert len(shifts) == 25
    assert torch.equal(augmented(BYTES, crop=2)[:, :, 2:4, 2:4], out[:, :, 2:4, 2:4]), "the same shifts as with black"


def test_alternating_flips_turn_with_the_epoch():
    """Every sample is flipped in every second epoch, in any order; the seed chooses the half that is first."""
    epochs = []
    for epoch in range(3):
        seen = {}
        for seed in (0, 1):
            for x, y in images(augment=dict(flip="alternate")).batches("train", seed, epoch):
                seen |= {(seed, int(row)): image for row, image in zip(y, x, strict=True)}
        epochs.append(seen)
    first, second, third = epochs
    assert all(torch.equal(first[key].flip(2), second[key]) and torch.equal(first[key], third[key]) for key in first)
    plain = {int(row): image for x, y in images().batches("train") for row, image in zip(y, x, strict=True)}
    flipped = {key for key, image in first.items() if not torch.equal(image, plain[key[1]])}
    assert 0.3 < len(flipped) / len(first) < 0.7
    assert {row for seed, row in flipped if seed == 0} != {row for seed, row in flipped if seed == 1}


def test_rot90_turns_four_ways():
    out = augmented(BYTES, rot90=True)
    turns = [[k for k in range(4) if torch.equal(x.rot90(k, (1, 2)), y)] for x, y in zip(BYTES, out, strict=True)]
    assert all(len(k) == 1 for k in turns)
    assert min(turns.count([k]) for k in range(4)) > 30


def test_cutout_is_a_square_of_its_size():
    out = augmented(torch.ones(300, 2, 12, 12), values=True, cutout=4)
    assert set(out.unique().tolist()) == {0.0, 1.0} and torch.equal(out[:, 0], out[:, 1])
    holes = out[:, 0] == 0
    rows, columns = holes.any(2), holes.any(1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :]), "boxes"
    for sides in (rows, columns):
        touches = sides[:, 0] | sides[:, -1]
        assert (sides.sum(1)[~touches] == 4).all() and (sides.sum(1) >= 1).all() and (sides.sum(1) <= 4).all()
        assert sides.any(0).all(), "it comes everywhere"


def test_erase_takes_its_share():
    zeros = torch.zeros(2000, 1, 16, 16)
    assert not augmented(zeros, values=True, erase=0.0).any()
    erased = augmented(zeros, values=True, erase=0.3) != 0
    hit = erased.flatten(1).any(1)
    assert 0.26 < hit.float().mean() < 0.34
    area = erased.flatten(1).float().mean(1)[hit]
    assert area.max() < 0.45 and area.min() > 0
    assert torch.equal(erased, erased.any(3, keepdim=True) & erased.any(2, keepdim=True)), "boxes"
    for counts in (erased.sum((0, 1, 2)), erased.sum((0, 1, 3))):
        assert counts[:8].sum().item() == pytest.approx(counts[8:].sum().item(), rel=0.15), "on either side"
    noise = augmented(zeros, values=True, erase=1.0)
    assert noise[noise != 0].std() == pytest.approx(1, abs=0.01)


def test_noise_has_its_deviation():
    out = augmented(torch.full((500, 1, 16, 16), 2.0), values=True, noise=0.3)
    assert out.mean() == pytest.approx(2, abs=0.01) and out.std() == pytest.approx(0.3, abs=0.01)


def test_jitter_shifts_and_scales_an_image():
    x = torch.linspace(-1, 1, 36).view(1, 1, 6, 6).expand(500, 2, 6, 6).clone()
    out = augmented(x.clone(), values=True, jitter=0.25)
    scale = (out[:, 0, 5, 5] - out[:, 0, 0, 0]) / 2
    shift = (out[:, 0, 5, 5] + out[:, 0, 0, 0]) / 2 / scale
    assert 0.75 <= scale.min() < 0.77 and 1.23 < scale.max() <= 1.25 and abs(shift).max() <= 0.25 + 1e-6
    torch.testing.assert_close(out, scale.view(-1, 1, 1, 1) * (x + shift.view(-1, 1, 1, 1)))


def test_nothing_is_augmented_outside_training():
    plain, data = images(), images(augment=EVERYTHING)
    for split in ("val", "test"):
        assert same(plain.batches(split), data.batches(split))
    assert not same(plain.batches("train"), data.batches("train"))
    assert same(
        images(augment=dict(erase=0.0, noise=0.0, jitter=0.0, policy="none", policy_ops=2, policy_level=0.3)).batches(
            "train"
        ),
        plain.batches("train"),
    )


@pytest.mark.parametrize(
    ("keys", "shape", "text"),
    [
        (
            dict(rot90=True),
            (1, 6, 8),
            "data.augment.rot90=true would swap the sides of images of 6x8: expected square images",
        ),
        (
            dict(crop=6),
            (1, 6, 8),
            "data.augment.crop=6 can leave nothing of an image of 6x8: expected fewer pixels than 6",
        ),
        (dict(cutout=9), (1, 8, 8), "data.augment.cutout=9 can leave nothing of an image of 8x8"),
    ],
)
def test_impossible_augmentations_are_refused(keys, shape, text):
    with pytest.raises(UserError, match=text):
        images(random_images(1), spec=Image(shape, classes=10), augment=keys)


# Data that contradicts its spec


@pytest.mark.parametrize(
    ("change", "spec", "text"),
    [
        (
            {},
            Image((3, 6, 5), 104),
            r"the train split holds 90 samples of shape \(3, 6, 6\) and 90 labels: .* of shape \(3, 6, 5\)",
        ),
        (
            {"y_test": np.arange(3)},
            None,
            "the test split holds 14 samples of shape .* and 3 labels: expected as many labels",
        ),
        (
            {"x_test": np.zeros((0, 3, 6, 6), np.uint8), "y_test": np.zeros(0, int)},
            None,
            "the test split holds 0 samples",
        ),
        ({}, Image((3, 6, 6), 90), "the test labels are in 90 .. 103: expected 0 .. 89"),
        ({"y_train": np.arange(-1, 89)}, None, r"the train labels are in -1 .. 88: expected 0 .. 103"),
        ({"x_train": np.zeros((90, 3, 6, 6))}, None, "the train split holds samples of type float64: expected uint8"),
        ({"y_train": np.zeros((90, 1), np.float32)}, None, r"has float32 targets of shape \(90, 1\): expected labels"),
    ],
)
def test_images_that_contradict_their_spec_are_refused(change, spec, text):
    with pytest.raises(DataError, match=text):
        images(random_images()._replace(**change), spec=spec or Image((3, 6, 6), SAMPLES + TESTS))


@pytest.mark.parametrize(
    ("y", "spec", "text"),
    [
        (
            np.zeros((44, 1), np.float32),
            Table(2, classes=2),
            "expected labels .data.spec.classes is set., int64 of shape",
        ),
        (
            np.zeros(44, np.int64),
            Table(2, targets=1),
            r"int64 targets of shape \(40,\): expected real targets .*float32 of shape",
        ),
        (
            np.zeros((44, 1), np.float32),
            Table(2, targets=2),
            r"\(40, 1\): expected real targets \(data.spec.targets=2\), .*\(40, 2\)",
        ),
        (np.zeros((44, 1), np.float32), Table(3, targets=1), r"shape \(2,\) and 40 labels: .* each of shape \(3,\)"),
    ],
)
def test_tables_that_contradict_their_spec_are_refused(y, spec, text):
    with pytest.raises(DataError, match=text):
        tables(np.zeros((44, 2), np.float32), y, spec)


def test_steps_cover_an_epoch():
    data = images()
    starts = [len(list(data.batches("train", 0, 0, first))) for first in range(19)]
    assert all(a - b == 1 for a, b in pairwise(starts)) and starts[0] == 18


def test_batches_from_a_position_equal_those_of_the_whole_epoch(session):
    data = session("data.augment={flip:true,crop:2,erase:0.5,noise:0.1}").data
    whole = list(data.batches("train", 1, 2))
    for first in range(5):
        assert same(list(data.batches("train", 1, 2, first)), whole[first:])
    assert not same(list(data.batches("train", 1, 3)), whole)
