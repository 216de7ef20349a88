"""Random numbers as functions of (seed, place in the run): nothing to save, nothing to drift."""

import torch

MASK = 2**64 - 1


def mix(seed: int, *places: int) -> int:
    """A 63-bit seed from a run's seed and a place in it (splitmix64: Steele et al. 2014, section 4)."""
    state = seed & MASK
    for place in (*places, len(places)):
        state = (state + 0x9E3779B97F4A7C15 * (place + 1)) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state >> 1


def generator(device: torch.device | str, seed: int, *places: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(mix(seed, *places))


class Reseeder:
    """Sets the default generators of the CPU and one device, so that a step draws from (seed, step) alone.

    `torch.manual_seed` walks every backend and costs 65 microseconds; this costs one.
    """

    def __init__(self, device: torch.device) -> None:
        self.generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            self.generators.append(torch.cuda.default_generators[device.index or 0])
        elif device.type == "mps":
            self.generators.append(torch.mps._get_default_mps_generator())

    def __call__(self, seed: int, step: int) -> None:
        value = mix(seed, step, 0)  # data sets draw from (seed, epoch) and (seed, epoch, 1 and up)
        for each in self.generators:
            each.manual_seed(value)
