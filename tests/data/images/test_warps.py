"""Rotation, zoom and shear of images, and the sheet of images before and after augmentation."""

import numpy as np
import pytest
import torch
from runs import compose, write_mnist
from toys import CPU

from dlrun.data.images.warps import warp
from dlrun.seeds import generator
from dlrun.train.session import Session


def bar(height: int = 33, width: int = 33) -> torch.Tensor:
    """A white bar through the middle, from top to bottom."""
    x = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    x[:, :, :, width // 2 - 1 : width // 2 + 2] = 255
    return x


def slant(x: torch.Tensor) -> float:
    """The tangent of the angle between the bright pixels' main axis and the vertical."""
    places = (x[0, 0] > 127).nonzero().double()
    axis = torch.linalg.svd(places - places.mean(0)).Vh[0]
    return abs(float(axis[1] / axis[0]))


def warped(x: torch.Tensor, seed: int, **amounts: float) -> torch.Tensor:
    return warp(x, **{"rotate": 0.0, "zoom": 0.0, "shear": 0.0} | amounts, random=generator(CPU, seed))


def draws(seed: int) -> list[float]:
    """What `warp` draws for the first image, in [-1, 1]: angle, zoom, shear."""
    return (2 * torch.rand(1, 3, generator=generator(CPU, seed))[0] - 1).tolist()


def test_without_settings_images_stay_as_they_are():
    x = torch.randint(0, 256, (5, 3, 9, 14), dtype=torch.uint8)
    assert torch.equal(warped(x, 0), x)


@pytest.mark.parametrize("sides", [(33, 33), (33, 65)])
@pytest.mark.parametrize("seed", range(4))
def test_a_rotation_turns_by_the_angle_drawn(seed, sides):
    turned = np.rad2deg(np.arctan(slant(warped(bar(*sides), seed, rotate=40.0))))
    assert turned == pytest.approx(abs(40 * draws(seed)[0]), abs=3)


@pytest.mark.parametrize("seed", range(4))
def test_zoom_changes_the_width_and_shear_the_slant(seed):
    width = float(warped(bar(), seed, zoom=1.0)[0, 0, 16].float().sum() / 255)
    assert width == pytest.approx(3 * 2 ** draws(seed)[1], abs=0.4)
    assert slant(warped(bar(), seed, shear=0.5)) == pytest.approx(abs(0.5 * draws(seed)[2]), abs=0.06)


def test_each_image_is_warped_differently_and_borders_are_black():
    out = warped(torch.full((6, 1, 16, 16), 200, dtype=torch.uint8), 0, rotate=45.0)
    assert len({tuple(image.flatten().tolist()) for image in out}) == 6
    assert out.max() == 200 and out[:, :, 0, 0].min() == 0


@pytest.mark.parametrize(
    ("key", "is_drawn"), [("rotate=30", True), ("zoom=0.3", True), ("flip=true", True), ("crop=0", False)]
)
def test_a_sheet_shows_what_augmentation_does(key, is_drawn, tmp_path):
    keys = ["data=mnist", "data.source.download=false", "model.hidden=[4]", "trainer.device=cpu"]
    session = Session(*compose(*keys, f"data_dir={write_mnist(tmp_path)}", f"data.augment.{key}"))
    figures = session.task.report(session.data).figures
    assert ("augmented" in figures) == is_drawn
    if is_drawn:
        sheet = figures["augmented"].args[0]
        shown = next(session.data.batches("val"))[0][0, 0] * 0.3081 + 0.1307
        torch.testing.assert_close(sheet[0, :28, :28], shown, atol=1e-3, rtol=0)
        assert sheet.shape[0] == 1 and not torch.equal(sheet[0, 30:58, :28], sheet[0, 60:88, :28])
