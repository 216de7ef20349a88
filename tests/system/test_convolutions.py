"""Weight gradients as products are those of torch."""

from copy import deepcopy

import pytest
import torch
from runs import SMALL, assert_same, compose, rows, train, write_mnist
from torch import nn
from toys import section, seeded

from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.output.checkpoints import Checkpoints
from dlrun.spec import Image
from dlrun.stack.functions import NotStackable
from dlrun.stack.run import make_job
from dlrun.stack.stacked import Stack
from dlrun.stack.trial import gain
from dlrun.system import convolutions
from dlrun.system.convolutions import ProductConv2d, use_products
from dlrun.train import assemble
from dlrun.train.session import Session


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("side", "shape", "bias"), [(3, (2, 5, 7, 4), False), (5, (3, 4, 6, 9), True), (3, (1, 2, 1, 1), True)]
)
def test_gradients_equal_torchs(side, shape, bias, layout):
    with seeded():
        plain = nn.Conv2d(shape[1], 6, side, padding=side // 2, bias=bias).to(memory_format=layout)
        x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    products, again = deepcopy(plain), x.detach().clone().requires_grad_()
    products.__class__ = ProductConv2d
    for net, inputs in ((plain, x), (products, again)):
        net(inputs).square().sum().backward()
    torch.testing.assert_close(x.grad, again.grad, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(products.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-5)


def test_autocast_casts_as_torch_does():
    with seeded():
        plain, x = nn.Conv2d(4, 3, 3, padding=1), torch.randn(2, 4, 6, 6)
    products = deepcopy(plain)
    products.__class__ = ProductConv2d
    for net in (plain, products):
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
    assert products.weight.grad.dtype == torch.float32
    torch.testing.assert_close(products.weight.grad, plain.weight.grad, atol=0.5, rtol=0.05)


def test_wide_convolutions_of_the_networks_are_replaced():
    spec = Image((3, 32, 32), 10)
    for model, expected in {"fast_cnn": 3, "resnet18": 9, "vgg13": 7, "lenet": 0}.items():
        net = build(section("model", model))(spec)
        state = list(net.state_dict())
        assert use_products(net) == expected, model
        assert list(net.state_dict()) == state
        assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def number_of_products(config: tuple[dict, dict]) -> int:
    return sum(isinstance(module, ProductConv2d) for module in Session(*config).task.net.modules())


def test_a_run_with_products_trains(tmp_path, monkeypatch):
    """It learns like a run without, up to rounding, and resumes to the bit."""
    monkeypatch.setattr(convolutions, "WIDE", 4)
    write_mnist(tmp_path)
    small = [o for o in SMALL if not o.startswith("model.")] + ["model=fast_cnn", "model.widths=[4,4,4]"]
    small += [f"data_dir={tmp_path}", "optimizer=sgd", "optimizer.lr=0.01"]
    config = compose(*small, "trainer.conv_gradients=products")
    assert number_of_products(config) == number_of_products(compose(*small)) == 6
    for has_tiles in (False, True):
        monkeypatch.setattr(assemble, "cpu_has_tiles", lambda found=has_tiles: found)
        assert number_of_products(compose(*small, "trainer.precision=bf16")) == 6 * has_tiles
    train(tmp_path / "a", config)
    train(tmp_path / "b", config, signals={2: 15})
    train(tmp_path / "b", config, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    plain = compose(*small, "trainer.conv_gradients=torch")
    assert number_of_products(plain) == 0
    train(tmp_path / "plain", plain)
    one, other = (rows(tmp_path / name)[-1]["train/loss"] for name in ("a", "plain"))
    assert one == pytest.approx(other, rel=1e-4)


def test_a_stack_needs_the_gradients_of_torch(tmp_path, monkeypatch):
    """The message names the layer and the key, as what `auto` chooses depends on the machine."""
    monkeypatch.setattr(convolutions, "WIDE", 4)
    write_mnist(tmp_path)
    small = [o for o in SMALL if not o.startswith("model.")] + ["model=fast_cnn", "model.widths=[4,4,4]"]

    def stack(kind: str) -> Stack:
        words = [*small, f"data_dir={tmp_path}", f"trainer.conv_gradients={kind}"]
        jobs = [make_job(k, *compose(*words, f"seed={k}"), tmp_path / str(k)) for k in range(2)]
        return Stack(jobs, Checkpoints(tmp_path), "id")

    why = "of Conv2d: its weight gradients are products here; trainer.conv_gradients=torch has a stacked form$"
    with pytest.raises(NotStackable, match=rf"^[\w.]+ {why}"):
        stack("products")
    assert gain(stack("torch")).step > 0


def test_second_derivatives_of_products_are_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    small = [o for o in SMALL if not o.startswith("model.")] + ["model=wgan_gp", f"data_dir={tmp_path}"]
    with pytest.raises(UserError, match="trainer.conv_gradients=products: this task needs second derivatives"):
        Session(*compose(*small, "trainer.conv_gradients=products"))
    monkeypatch.setattr(convolutions, "WIDE", 4)
    assert number_of_products(compose(*small)) == 0
