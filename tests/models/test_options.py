"""The optional members of networks: those that a network has, and the values of one that has none."""

from dataclasses import fields

import torch
from torch import nn

from dlrun.models.options import Options, options_of


def test_a_network_without_optional_members():
    assert options_of(nn.Linear(2, 1)) == Options()


def test_members_are_read_from_the_network_and_its_class():
    class Net(nn.Linear):
        BACKBONE = ("features.",)

        def __init__(self):
            super().__init__(2, 1)
            self.description, self.auxiliary, self.num_init_samples = "; narrow", 0.3, 5

        def init_from_data(self, x):
            self.seen = x

    net = Net()
    options = options_of(net)
    assert (options.description, options.auxiliary, options.BACKBONE) == ("; narrow", 0.3, ("features.",))
    assert options.num_init_samples == 5 and options.report is None and options.observe is None
    options.init_from_data(torch.ones(5, 2))
    assert net.seen.shape == (5, 2)


def test_no_member_hides_one_of_torchs_modules():
    assert not {field.name for field in fields(Options)} & set(dir(nn.Module))
