"""The operations of TrivialAugment and RandAugment against Pillow and closed forms."""

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from PIL import ImageEnhance, ImageOps

from dlrun.data.images.random_augment import COLOURS, GEOMETRIC, OPERATIONS, RAND, TRIVIAL, apply_policy, operate
from dlrun.seeds import generator

CPU = torch.device("cpu")


def images(count: int = 6, channels: int = 3, height: int = 12, width: int = 16) -> torch.Tensor:
    """Smooth images that do not use all values, so that every operation changes them."""
    rng = np.random.RandomState(0)
    waves = np.cumsum(rng.normal(size=(count, channels, height, width)), 3) * 12 + 120
    return torch.from_numpy(waves.clip(20, 230).astype(np.uint8))


def changed(x: torch.Tensor, name: str, level: float, sign: int = 1, space=TRIVIAL) -> torch.Tensor:
    one = torch.ones(len(x))
    return operate(x, (one * OPERATIONS.index(name)).long(), level * one, (sign * one).long(), space)


def pillow(x: torch.Tensor, change) -> torch.Tensor:
    pictures = [Picture.fromarray(each.permute(1, 2, 0).numpy()) for each in x]
    return torch.stack([torch.from_numpy(np.asarray(change(each)).copy()).permute(2, 0, 1) for each in pictures])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_blends_are_pillows(name, level, sign):
    factor = 1 + sign * level * TRIVIAL.blend
    enhance = getattr(ImageEnhance, name.capitalize())
    expected = pillow(images(), lambda picture: enhance(picture).enhance(factor))
    torch.testing.assert_close(changed(images(), name, level, sign).int(), expected.int(), atol=2, rtol=0)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_posterize_and_solarize_are_pillows(level):
    bits = 8 - round(level * TRIVIAL.posterize)
    assert torch.equal(changed(images(), "posterize", level), pillow(images(), lambda p: ImageOps.posterize(p, bits)))
    threshold = 255 * (1 - level)
    expected = pillow(images(), lambda p: ImageOps.solarize(p, threshold))
    assert torch.equal(changed(images(), "solarize", level), expected)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_contrast_is_spread_as_by_pillow(name):
    expected = pillow(images(height=40, width=30), getattr(ImageOps, name))
    found = changed(images(height=40, width=30), name, 0.3)
    torch.testing.assert_close(found.int(), expected.int(), atol=1, rtol=0)
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(changed(flat, name, 1.0), flat)


def test_translations_move_whole_pixels():
    x = images()
    right = changed(x, "translate_x", 0.25)  # of 16 pixels
    assert torch.equal(right[:, :, :, :12], x[:, :, :, 4:]) and not right[:, :, :, 12:].any()
    up = changed(x, "translate_y", 0.25, -1)
    assert torch.equal(up[:, :, 3:], x[:, :, :9]) and not up[:, :, :3].any()


def test_rotation_by_quarter_turns():
    square = images(height=9, width=9)
    for sign in (1, -1):
        found = changed(square, "rotate", 90 / TRIVIAL.rotate, sign)
        assert torch.equal(found, square.rot90(sign, (2, 3)))


def test_shears_keep_the_middle():
    square = images(height=9, width=9)
    assert torch.equal(changed(square, "shear_x", 0.7)[:, :, 4], square[:, :, 4])
    assert torch.equal(changed(square, "shear_y", 0.7)[:, :, :, 4], square[:, :, :, 4])


@pytest.mark.parametrize("space", [TRIVIAL, RAND])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_gets_its_own_operation(channels, space):
    """Alone or in a batch; at level 0, operations with a level are the identity."""
    x = images(len(OPERATIONS), channels, 20, 20)  # enough pixels to equalize
    chosen, ones = torch.arange(len(OPERATIONS)), torch.ones(len(OPERATIONS))
    together = operate(x, chosen, 0.4 * ones, ones.long(), space)
    for i, name in enumerate(OPERATIONS):
        assert torch.equal(together[i : i + 1], changed(x[i : i + 1], name, 0.4, space=space)), name
        is_same = torch.equal(together[i], x[i])
        assert is_same == (name == "identity" or channels == 1 and name == "color"), name
        if name not in ("autocontrast", "equalize", "solarize"):
            assert torch.equal(changed(x[i : i + 1], name, 0.0, space=space), x[i : i + 1]), name
    assert together.dtype == torch.uint8 and {*COLOURS, *GEOMETRIC, "identity"} == set(OPERATIONS)


def test_policies_draw_from_the_generator():
    x = images(400, 1, 8, 8)
    for policy in ("trivial", "rand"):
        first, again = (apply_policy(x, policy, 2, 0.5, generator(CPU, seed)) for seed in (1, 1))
        other = apply_policy(x, policy, 2, 0.5, generator(CPU, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)
        same = (first == x).flatten(1).all(1).float().mean()
        assert 0.01 < same < 0.35  # identity, color of grey images, level 0
