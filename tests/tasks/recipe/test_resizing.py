"""Progressive resizing by the clock."""

from signal import SIGTERM

import pytest
import torch
from runs import SMALL, assert_same, compose, train, write_mnist
from torch import nn
from toys import make_task, section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.spec import Image, Table

SPEC = Image((3, 16, 24), 4)


class Seen(nn.Module):
    """Accepts images of any size and records their sides."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.sides, self.inputs = nn.Linear(3, 4), [], []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            self.sides.append(tuple(x.shape[2:]))
            self.inputs.append(x)
        return self.head(x.mean((2, 3)))


def test_sizes_follow_the_clock():
    net = Seen()
    task = make_task(net, SPEC, task=dict(resize=[[1.0, 1.5], [0.5, 0], [0.75, 1]]))
    clock = Clock(0, 2, 4)
    for _ in range(8):
        task.step((torch.rand(2, *SPEC.shape), torch.tensor([0, 3])), clock)
        clock.tick(2)
        if clock.batch == 4:
            clock.next_epoch()
    assert net.sides == 4 * [(8, 12)] + 2 * [(12, 18)] + 2 * [(16, 24)]


def test_a_smaller_image_keeps_its_mean_and_format():
    net = Seen()
    task = make_task(net, SPEC, task=dict(resize=[[0.5, 0]]))
    x = torch.rand(2, *SPEC.shape).to(memory_format=torch.channels_last)
    task.step((x, torch.tensor([0, 3])), Clock(0, 1, 1))
    assert net.inputs[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net.inputs[0].mean((2, 3)), x.mean((2, 3)), atol=0.02, rtol=0)
    assert task.predict(x).shape == (2, 4) and net.sides[-1] == (16, 24)


def test_a_run_that_resizes_resumes_to_the_bit(tmp_path):
    write_mnist(tmp_path)
    small = [each for each in SMALL if not each.startswith("model.")] + ["model=fast_cnn", "model.widths=[4,4,4]"]
    config = compose(f"data_dir={tmp_path}", *small, "task.resize=[[0.5,0],[0.75,0.5],[1,1.25]]")
    train(tmp_path / "a", config)
    train(tmp_path / "b", config, signals={2: SIGTERM})
    train(tmp_path / "b", config, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_data_that_cannot_be_resized_is_refused():
    with pytest.raises(UserError, match="task.resize=.* needs images: expected .. for data of Table"):
        make_task(nn.Linear(3, 2), Table(features=3, classes=2), task=dict(resize=[[0.5, 0]]))
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 4))
    with pytest.raises(UserError, match="task.resize has 0.5: this net cannot take images of 8x12\n  expected larger"):
        make_task(fixed, SPEC, task=dict(resize=[[1.0, 2], [0.5, 0]]))
    net = build(section("model", "fast_cnn"))(SPEC)
    make_task(net, SPEC, task=dict(resize=[[0.6, 0]]))
    with pytest.raises(UserError, match="this net cannot take images of 3x5"):
        make_task(net, SPEC, task=dict(resize=[[0.2, 0]]))
