"""Mixup, CutMix, and averaged views of test images."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import make_task, seeded

from dlrun.clock import Clock
from dlrun.errors import UserError
from dlrun.spec import Image, Table, Tokens
from dlrun.tasks.recipe.mixing import Mixing
from dlrun.tasks.recipe.views import Views

SPEC = Image((2, 8, 10), 4)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(6.0).view(6, 1, 1, 1).expand(6, *SPEC.shape), torch.tensor([0, 1, 2, 3, 0, 1])


def draws(number: int = 300, **alpha) -> list:
    mixing = Mixing(SPEC, **dict(mixup=0.0, cutmix=0.0) | alpha)
    with seeded():
        return [mixing(*batch()) for _ in range(number)]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_a_weighted_mean(alpha):
    x, y = batch()
    shares = []
    for mixed, other, share in draws(mixup=alpha):
        torch.testing.assert_close(mixed, share * x + (1 - share) * x.flip(0))
        assert torch.equal(other, y.flip(0)) and 0 <= share <= 1
        shares.append(share.item())
    assert torch.tensor(shares).mean() == pytest.approx(0.5, abs=0.08)
    assert torch.tensor(shares).var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)  # of Beta(alpha, alpha)


def test_cutmix_exchanges_a_box():
    x, _ = batch()
    for mixed, _, share in draws(cutmix=1.0):
        taken = mixed[0, 0] != 0  # of the last image, whose pixels are 5
        assert torch.equal(mixed, torch.where(taken, x.flip(0), x))
        assert share == pytest.approx(1 - taken.float().mean().item(), abs=1e-6)
        rows, columns = taken.any(1).sum(), taken.any(0).sum()
        assert taken.sum() == rows * columns, "a box"


def test_mixup_and_cutmix_are_chosen_at_random():
    whole = [bool(((mixed == 0) | (mixed == 5))[0].all()) for mixed, _, _ in draws(mixup=1.0, cutmix=1.0)]
    assert 0.4 < sum(whole) / len(whole) < 0.6


def test_a_tiny_alpha_gives_finite_shares():
    shares = torch.stack([share for _, _, share in draws(mixup=1e-6)])
    assert shares.isfinite().all()


def test_the_loss_is_weighted_by_the_share():
    net = nn.Sequential(nn.Flatten(), nn.Linear(160, 4))
    task = make_task(net, SPEC, "sgd", lr=0.0, task=dict(mixup=1.0))
    with seeded():
        shown = task.step(batch(), Clock(0, 1, 1))["loss"]
    with seeded():
        x, other, share = Mixing(SPEC, 1.0, 0.0)(*batch())
    expected = share * F.cross_entropy(net(x), batch()[1]) + (1 - share) * F.cross_entropy(net(x), other)
    torch.testing.assert_close(shown, expected.detach())


def test_views_are_averaged():
    with seeded():
        x, net = torch.randn(3, *SPEC.shape), nn.Sequential(nn.Flatten(), nn.Linear(160, 4))
        padded = F.pad(x, (2, 2, 2, 2), mode="reflect")

    def both(view: torch.Tensor) -> torch.Tensor:
        return (net(view) + net(view.flip(3))) / 2

    torch.testing.assert_close(Views(False, 0).mean(net, x), net(x))
    torch.testing.assert_close(Views(True, 0).mean(net, x), both(x))
    up, down = padded[:, :, :8, :10], padded[:, :, 4:, 4:]
    torch.testing.assert_close(Views(False, 2).mean(net, x), net(x) / 2 + net(up) / 4 + net(down) / 4)
    torch.testing.assert_close(Views(True, 2).mean(net, x), both(x) / 2 + both(up) / 4 + both(down) / 4)
    task = make_task(net, SPEC, task=dict(test_flip=True, test_shift=2))
    torch.testing.assert_close(task.predict(x), Views(True, 2).mean(net, x).softmax(1).detach())


@pytest.mark.parametrize(
    ("keys", "spec", "text"),
    [
        (
            dict(mixup=0.2),
            Tokens(5, 9, 2),
            "task.mixup=0.2 cannot mix words or categories: expected 0 for data of Tokens",
        ),
        (dict(cutmix=1.0), Table(features=3, classes=2), "task.cutmix=1.0 needs images: expected 0 for data of Table"),
        (dict(test_flip=True), Table(features=3, classes=2), "task.test_flip=true needs images"),
        (dict(test_shift=1), Tokens(5, 9, 2), "task.test_shift=1 needs images: expected none for data of Tokens"),
        (
            dict(test_shift=8),
            SPEC,
            "task.test_shift=8 leaves nothing of an image of 8x10: expected fewer pixels than 8",
        ),
    ],
)
def test_data_that_cannot_be_mixed_or_transformed_is_refused(keys, spec, text):
    with pytest.raises(UserError, match=text):
        make_task(nn.Linear(3, 3), spec, task=keys)
