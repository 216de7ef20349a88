"""Devices and what they can do: refusals."""

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_without_a_gpu_is_refused(refused):
    text = refused("trainer.device=cuda")
    assert text.startswith("trainer.device=cuda: ") and "expected one of: cpu" in text and "trainer.device=auto" in text


@pytest.mark.parametrize("what", [["model=wgan_gp", "data=moons"], ["model=ppo", "data=cartpole"]])
def test_compiling_where_it_cannot_help_is_refused(refused, what):
    assert refused(*what, "trainer.compile=true").startswith(
        "trainer.compile=true: torch.compile does not support this task"
    )
