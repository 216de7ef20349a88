"""The network that learns CIFAR-10 fast: whitened patches, identity initialisation, and how a run saves them."""

import pytest
import runs
import torch
from torch import nn
from toys import section, seeded

from dlrun.config.build import build
from dlrun.models.fast_cnn import EPS, Whiten
from dlrun.output.checkpoint import load
from dlrun.spec import Image
from dlrun.train.session import Session

SPEC = Image((3, 32, 32), 10)


def net(**keys) -> nn.Module:
    with seeded():
        return build(section("model", "fast_cnn") | keys)(SPEC)


def images(count: int = 40) -> torch.Tensor:
    with seeded(1):
        noise = torch.randn(count, 3, 12, 12).cumsum(2).cumsum(3) / 4
    return noise * torch.tensor([1.0, 0.8, 0.5]).view(3, 1, 1)  # no two components of equal variance


def test_patches_are_whitened():
    """Uncorrelated, of variance v / (v + EPS), in both signs, for either sign of the components."""
    whiten, x = Whiten(3), images()
    whiten.init_from_data(x)
    half = whiten.weight[:12].flatten(1)
    assert torch.equal(whiten.weight[12:], -whiten.weight[:12])
    assert (half.gather(1, half.abs().argmax(1, keepdim=True)) > 0).all()
    out = whiten(x).detach()[:, :12].transpose(0, 1).flatten(1).double()
    patches = torch.nn.functional.unfold(x, 2).transpose(0, 1).flatten(1).double()
    variances = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1]).flip(0)
    expected = (variances / (variances + EPS)).diag()
    torch.testing.assert_close(out @ out.T / out.shape[1], expected, atol=2e-3, rtol=0)


def test_whitening_does_not_depend_on_how_images_are_batched():
    first, second = Whiten(3), Whiten(3)
    first.init_from_data(images(1100))
    second.init_from_data(images(1100).flip(0))
    torch.testing.assert_close(first.weight, second.weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("depth", "convs"), [(2, 6), (3, 9)])
def test_convolutions_start_as_the_identity(depth, convs):
    found = [m for m in net(depth=depth, widths=[8, 6, 12]).modules() if isinstance(m, nn.Conv2d)]
    assert len(found) == convs
    for conv in found:
        x, same = torch.randn(2, conv.in_channels, 5, 5), min(conv.in_channels, conv.out_channels)
        torch.testing.assert_close(conv(x)[:, :same], x[:, :same])
        assert same == conv.out_channels or conv.weight[same:].std() > 0


def test_the_number_of_parameters_follows_the_formula():
    made = net()
    learned = sum(p.numel() for p in made.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in made.parameters() if not p.requires_grad)
    widths = [24, 64, 256, 256]
    filters = sum(9 * (a * b + b * b) for a, b in zip(widths, widths[1:], strict=False))
    assert frozen == 2 * (64 + 256 + 256) and learned == filters + frozen + 24 + 2560
    assert sum(p.numel() for p in net(norm_scale=True).parameters() if p.requires_grad) == learned + frozen


def test_without_whitening_the_first_layer_learns():
    plain = net(whiten=False, identity=False)
    assert plain.stem.weight.requires_grad and plain.stem.weight.shape == (24, 3, 2, 2)
    before = plain.stem.weight.clone()
    plain.init_from_data(images())
    assert torch.equal(plain.stem.weight, before)
    conv = plain.group1.convs[0]
    assert not torch.equal(conv(torch.ones(1, 24, 3, 3))[0, :24, 1, 1], torch.ones(24))


def test_logits_are_scaled():
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(4 * net().eval()(x), net(logit_scale=0.25).eval()(x))


def test_a_run_keeps_the_filters_of_its_train_split(tmp_path):
    """The filters are fitted once, for a new network; a resumed run and one with init= keep theirs."""
    runs.write_mnist(tmp_path)
    small = [o for o in runs.SMALL if not o.startswith("model.")] + ["model=fast_cnn", "model.widths=[4,4,4]"]
    config = runs.compose(f"data_dir={tmp_path}", *small)
    runs.train(tmp_path / "run", config)
    weights = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["components"]["net"]["stem.weight"]
    whiten = Whiten(1)
    assert not torch.equal(weights, whiten.weight)
    data = Session(*config).data
    whiten.init_from_data(torch.cat([x for x, _ in data.batches("train")]))
    torch.testing.assert_close(weights, whiten.weight.to(weights))
    other = runs.compose(f"data_dir={tmp_path}", *small, f"init={tmp_path / 'run'}", "data.augment.noise=2.0")
    runs.train(tmp_path / "other", other)
    kept = load(tmp_path / "other" / "checkpoints" / "last.ckpt")["components"]["net"]["stem.weight"]
    assert torch.equal(kept, weights)
