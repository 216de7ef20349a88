"""Gradient accumulation: steps over micro-batches have the gradient of the whole batch."""

import pytest
import torch

from dlrun.clock import Clock


@pytest.mark.parametrize("grad_accum_steps", [2, 3, 16])
def test_micro_batches_give_the_gradient_of_the_whole_batch(grad_accum_steps, session):
    gradients, metrics = [], []
    for count in (1, grad_accum_steps):
        task = session(f"task.grad_accum_steps={count}", "task.l2=0.01", "task.l1=0.001", "optimizer=sgd").task
        x, y = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
        x = torch.linspace(0, 1, x.numel()).reshape(x.shape).sin()
        task.update.take_step = lambda net=task.net: gradients.append([p.grad for p in net.parameters()])
        metrics.append(task.step((x, y), Clock(0, 1, 1)))
    for whole, pieced in zip(*gradients, strict=True):
        torch.testing.assert_close(pieced, whole, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(metrics[1]["loss"], metrics[0]["loss"])
    assert torch.equal(metrics[1]["acc"], metrics[0]["acc"])
