"""Seeds for each run, step and use, all different."""

import torch
from toys import CPU

from dlrun.seeds import Reseeder, generator, mix


def test_reseeding_depends_on_seed_and_step_only():
    reseed, drawn = Reseeder(CPU), {}
    for seed in (0, 1):
        for step in (0, 1, 2):
            reseed(seed, step)
            drawn[seed, step] = torch.randn(5)
    reseed(0, 1)
    assert torch.equal(torch.randn(5), drawn[0, 1])
    assert len({tuple(d.tolist()) for d in drawn.values()}) == 6


def test_seeds_differ_for_all_uses():
    places = [(), *((a,) for a in range(50)), *((a, b) for a in range(50) for b in range(50))]
    found = {mix(seed, *place) for seed in range(4) for place in places}
    assert len(found) == 4 * len(places) and all(0 <= s < 2**63 for s in found)
    assert generator("cpu", 0, 3).initial_seed() == mix(0, 3)
