"""Scalars that are read later: with their own value."""

from math import isnan

import torch
from toys import CPU

from dlrun.system.async_scalar import AsyncScalar


def test_a_scalar_is_read_back_unchanged():
    assert AsyncScalar(CPU).start(torch.tensor(1.5))() == 1.5
    assert isnan(AsyncScalar(CPU).start(torch.tensor(float("nan")))())
