"""What a stack is estimated to gain, and from which gain on `auto` stacks."""

from types import SimpleNamespace

import pytest

from dlrun.stack.timing import LEAST, Age, Timing
from dlrun.stack.trial import Gain


def total(step: float, start: float, steps: int) -> float:
    """The estimate for four jobs. step: of the stack, in steps of a job, which take 10 ms. start: seconds."""
    job = SimpleNamespace(training=SimpleNamespace(clock=SimpleNamespace(total_steps=steps)))
    return Timing(Gain(0.01, 0.01 * step), Age(9.0, start)).total([job] * 4)


def test_the_gain_counts_steps_and_the_processor_time_of_starts():
    assert total(2.0, 0.0, 400) == pytest.approx(2.0)
    assert total(2.0, 4.0, 400) == pytest.approx(4.0), "a start that takes as long as all steps doubles it"
    assert total(3.0, 0.4, 400) < LEAST < total(2.2, 0.4, 400), "LeNet on MNIST runs one after another, an MLP does not"
