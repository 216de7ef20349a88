"""Operations with fixed numbers: the book's worked examples to the digit, torch's own gradients, a run."""

import json
from math import hypot

import pytest
import torch
import torch.nn.functional as F
from runs import compose, train
from toys import seeded

from dlrun.errors import UserError
from dlrun.models.operations import EDGES, OPERATIONS, SHARPEN, convolution, operations
from dlrun.spec import Image
from dlrun.train.session import Session

KERNEL = [[-1.0, 2.0, -3.0], [4.0, -5.0, 6.0], [-7.0, 8.0, -9.0]]


def counting(side: int) -> torch.Tensor:
    return torch.arange(1.0, side * side + 1).view(1, 1, side, side)


def test_the_books_convolutions_are_reproduced_to_the_digit():
    """Section 10.11.2: 5x5 with stride 2, and back; 4x4 with stride 1; section 10.11.1: dilation turns 7x7 into 3x3."""
    out = convolution(Image((1, 5, 5)), kernel=KERNEL, stride=2, padding=0, dilation=1)(counting(5))
    assert out["convolution"][0, 0].tolist() == [[-67, -77], [-117, -127]]
    back = out["transposed"][0, 0]
    assert back.shape == (5, 5) and back[0, :3].tolist() == [67, -134, 278] and back[4, 4] == 1143
    out = convolution(Image((1, 4, 4)), kernel=KERNEL, stride=1, padding=0, dilation=1)(counting(4))
    assert out["convolution"][0, 0].tolist() == [[-56, -61], [-76, -81]] and out["transposed"].shape == (1, 1, 4, 4)
    out = convolution(Image((1, 7, 7)), kernel=KERNEL, stride=1, padding=0, dilation=2)(counting(7))
    assert out["convolution"].shape == (1, 1, 3, 3)


@pytest.mark.parametrize("keys", [dict(stride=1, padding=0, dilation=1), dict(stride=2, padding=1, dilation=2)])
def test_the_gradient_of_the_kernel_equals_that_of_autograd(keys):
    with seeded():
        x, weight = torch.randn(2, 3, 9, 8), torch.randn(2, 3, requires_grad=True)
    found = convolution(Image((3, 9, 8)), kernel=weight.tolist(), **keys)(x)
    out = F.conv2d(x.flatten(0, 1)[:, None], weight[None, None], **keys)
    torch.testing.assert_close(found["convolution"].flatten(0, 1), out[:, 0])
    (slopes,) = torch.autograd.grad(out.sum(), weight)
    torch.testing.assert_close(found["kernel_gradient"].sum((0, 1)), slopes)


def test_operations_on_a_ramp_and_a_step():
    """A plane has a constant Sobel gradient and no edges; the means are kept by blurring and pooling."""
    spec = Image((1, 8, 8))
    ramp = (torch.arange(8.0) * 2)[None, None, :, None] + torch.arange(8.0)[None, None, None]  # 2 row + column
    out = operations(spec, names=list(OPERATIONS))(ramp)
    inside = {name: values[..., 1:-1, 1:-1] for name, values in out.items()}
    assert torch.equal(out["identity"], ramp) and not inside["edges"].any()
    assert inside["sobel_x"].unique().tolist() == [8] and inside["sobel_y"].unique().tolist() == [16]
    torch.testing.assert_close(inside["sobel"], torch.full((1, 1, 6, 6), hypot(8, 16)))
    torch.testing.assert_close(inside["blur"], ramp[..., 1:-1, 1:-1])
    torch.testing.assert_close(inside["sharpen"], ramp[..., 1:-1, 1:-1])
    torch.testing.assert_close(out["max_pool"], F.max_pool2d(ramp, 2))
    assert torch.equal(F.max_pool2d(out["unpool"], 2), out["max_pool"]) and (out["unpool"] != 0).sum() == 16
    assert out["transposed"].shape == (1, 1, 16, 16) and out["strided"].shape == (1, 1, 4, 4)
    torch.testing.assert_close(out["transposed"][..., 4:12, 4:12].mean(), ramp[..., 2:6, 2:6].mean())
    assert sum(map(sum, SHARPEN)) == 1 and sum(map(sum, EDGES)) == 0


def test_a_run_shows_the_numbers(tmp_path):
    train(tmp_path, compose("model=convolution", "trainer.device=cpu"), finish=True)
    test = json.loads((tmp_path / "summary.json").read_text())["test"]
    assert test["test/convolution"] == -97 and test["outputs"]["convolution"] == [[[-67, -77], [-117, -127]]]
    assert test["outputs"]["input"][0][4] == pytest.approx([21, 22, 23, 24, 25])
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["operations.png"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["model=convolution", "model.kernel=[[1,2],[3]]"],
            r"model.kernel=\[\[1, 2\], \[3\]\]: expected rows of equally",
        ),
        (["model=convolution", "model.kernel=[[1,1e30]]"], "each a number of at most 1,000,000"),
        (
            ["model=convolution", "model.dilation=3"],
            "with model.dilation=3 reaches over 7 pixels, and the images have 5",
        ),
        (
            ["model=operations", "data=digits", "model.names=[]"],
            r"model.names=\[\]: expected some of identity, sharpen",
        ),
        (["model=operations", "data=digits", "model.names=[blurr]"], "expected a list, each one of identity, sharpen"),
        (["model=convolution", "data.source.width=60"], "the numbers would go up to 300"),
    ],
)
def test_impossible_settings_are_refused(words, text):
    with pytest.raises(UserError, match=text):
        Session(*compose(*words, "trainer.device=cpu"))


def test_a_missing_image_is_refused(tmp_path):
    with pytest.raises(UserError, match="task.index=5: expected an image of the test split, at most 0"):
        train(tmp_path, compose("model=convolution", "trainer.device=cpu", "task.index=5"), finish=True)
