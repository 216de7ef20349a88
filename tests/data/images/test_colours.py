"""Random saturation and hue: against colorsys, by the amounts drawn; grey images, and draws without them."""

import colorsys

import pytest
import torch
from toys import CPU

from dlrun.data.base import AugmentContext
from dlrun.data.images.augment import Augment
from dlrun.data.images.colours import recolour, turned
from dlrun.errors import UserError
from dlrun.seeds import generator


def pictures(samples: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (samples, 3, 4, 5), generator=generator(CPU, 7)).to(torch.uint8)


def context(samples: int) -> AugmentContext:
    return AugmentContext(generator(CPU, 3), 3, 0, torch.arange(samples))


def test_the_hue_turns_as_in_colorsys():
    x, turns = pictures().float(), torch.tensor([0.3, -0.2, 0.5, 0.0]).view(4, 1, 1, 1)
    out = turned(x, turns)
    for image, by, found in zip(x, turns.flatten().tolist(), out, strict=True):
        for pixel, new in zip(image.flatten(1).T, found.flatten(1).T, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255).tolist())
            expected = torch.tensor(colorsys.hsv_to_rgb((hue + by) % 1, saturation, value)) * 255
            torch.testing.assert_close(new, expected, atol=0.01, rtol=0)


def test_a_third_of_a_turn_permutes_the_channels():
    x = pictures().float()
    torch.testing.assert_close(turned(x, torch.full((4, 1, 1, 1), 1 / 3)), x[:, [2, 0, 1]], atol=0.01, rtol=0)


def test_saturation_scales_the_distance_from_grey():
    colour = torch.tensor([120, 100, 90], dtype=torch.uint8).view(1, 3, 1, 1).expand(500, 3, 2, 2)
    grey = 0.299 * 120 + 0.587 * 100 + 0.114 * 90
    factors = (recolour(colour, 0.5, 0.0, generator(CPU, 0)).float()[:, 0, 0, 0] - grey) / (120 - grey)
    assert 0.45 < factors.min() < 0.55 and 1.45 < factors.max() < 1.55
    amounts = 2 * torch.rand(2, 500, 1, 1, 1, generator=generator(CPU, 0)) - 1
    torch.testing.assert_close(factors, 1 + 0.5 * amounts[0, :, 0, 0, 0], atol=0.5 / (120 - grey) + 1e-3, rtol=0)


def test_grey_pixels_keep_their_value_and_images_differ_in_their_change():
    grey = pictures()[:, :1].expand(-1, 3, -1, -1).contiguous()
    assert torch.equal(recolour(grey, 1.0, 0.5, generator(CPU, 0)), grey)
    same = pictures(1).expand(6, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in recolour(same, 0.5, 0.3, generator(CPU, 0))}) == 6


def test_without_the_keys_nothing_is_drawn_and_nothing_changes():
    """A run whose config lacks them keeps its batches to the bit."""
    x, plain, drawn = pictures(), Augment(jitter=0.2, noise=0.1), context(4)
    assert plain.on_bytes(x, drawn) is x
    assert torch.equal(torch.rand(3, generator=drawn.random), torch.rand(3, generator=generator(CPU, 3)))
    for keys in ({"saturation": 0.4}, {"hue": 0.1}, {"saturation": 0.4, "hue": 0.1}):
        drawn = context(4)
        assert not torch.equal(Augment(**keys).on_bytes(x, drawn), x)
        expected = generator(CPU, 3)
        torch.rand(2, 4, 1, 1, 1, generator=expected)
        assert torch.equal(torch.rand(3, generator=drawn.random), torch.rand(3, generator=expected)), keys


@pytest.mark.parametrize("keys", [{"saturation": 0.1}, {"hue": 0.1}])
def test_grey_images_are_refused(keys):
    with pytest.raises(UserError, match="images of 1 channel have no colours\n  expected images of 3 channels"):
        Augment(**keys).check((1, 8, 8))
    Augment(**keys).check((3, 8, 8))
