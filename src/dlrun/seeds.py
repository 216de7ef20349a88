"""Random numbers as pure functions of the seed and a position in the run: there is no state to save."""

from collections.abc import Callable

import torch

MASK = 2**64 - 1


def mix(seed: int, *position: int) -> int:
    """Mix a run's seed and a position in the run, such as (epoch,), into a 63-bit seed.

    splitmix64 (Steele, Lea and Flood 2014, section 4), applied to one number after the other.
    """
    state = seed & MASK
    for number in (*position, len(position)):
        state = (state + 0x9E3779B97F4A7C15 * (number + 1)) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state >> 1


def generator(device: torch.device | str, seed: int, *position: int) -> torch.Generator:
    """A generator on the device, seeded with `mix(seed, *position)`."""
    return torch.Generator(device).manual_seed(mix(seed, *position))


class Reseeder:
    """Seeds the default generators of the CPU and one device, so that a step's random numbers depend on (seed, step).

    `torch.manual_seed` visits every backend and takes 65 microseconds; this takes one.
    """

    def __init__(self, device: torch.device) -> None:
        self.seeders: list[Callable[[int], object]] = [torch.default_generator.manual_seed]
        if device.type == "cuda":
            torch.cuda.init()
            self.seeders.append(torch.cuda.default_generators[device.index or 0].manual_seed)
        elif device.type == "mps":
            self.seeders.append(torch.mps.manual_seed)

    def __call__(self, seed: int, step: int) -> None:
        value = mix(seed, step, 0)  # (seed, epoch) and (seed, epoch, k) with k >= 1 belong to the data sets
        for seed_generator in self.seeders:
            seed_generator(value)
