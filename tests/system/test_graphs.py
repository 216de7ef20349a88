"""Steps as CUDA graphs equal steps without; on a GPU, or a fake one (see test_cuda.py)."""

import pytest
import runs
import torch
from toys import make_update

from dlrun.errors import UserError
from dlrun.output.checkpoint import load
from dlrun.system.graphs import WARM, StepGraphs, why_not
from dlrun.train.session import Session

CUDA = torch.device("cuda")
NEEDS_GPU = pytest.mark.skipif(runs.DEVICE != "cuda", reason="no GPU is here")
CASES = {
    "plain": [],
    "dropout": ["model.dropout=0.5", "model.norm=batch"],
    "frozen": ["model.norm=batch", "task.freeze_from=[['1',1]]"],
    "mixed": ["task.mixup=0.4", "task.cutmix=1.0"],
    "fp16": ["trainer.precision=fp16", "model.norm=batch"],
    "skip": ["trainer.on_nan=skip", "model.norm=batch"],
    "fast_cnn": ["model=fast_cnn", "model.widths=[4,4,4]", "data.augment.flip=alternate"],
}


@NEEDS_GPU
@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_give_the_same_bits(case, tmp_path):
    runs.write_mnist(tmp_path)
    small = [each for each in runs.SMALL if case != "fast_cnn" or not each.startswith("model.")]
    small += [f"data_dir={tmp_path}", "trainer.epochs=5", "optimizer=adamw", *CASES[case]]
    nan_at = (14,) if case == "skip" else ()
    runs.train(tmp_path / "eager", runs.compose(*small), nan_at=nan_at)
    config = runs.compose(*small, "trainer.cuda_graph=true")
    runs.train(tmp_path / "graphs", config, nan_at=nan_at)
    runs.assert_same(tmp_path / "eager", tmp_path / "graphs")
    assert load(tmp_path / "graphs" / "checkpoints" / "last.ckpt")["clock"]["step"] == 20


@NEEDS_GPU
def test_kinds_of_steps_are_recorded_after_the_first_few():
    net = torch.nn.Linear(3, 1).to(CUDA)
    update, calls = make_update(net), []

    def learn(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, dict]:
        calls.append(len(x))
        loss = (net(x) - y).square().mean()
        return loss, {"loss": loss.detach()}

    graphs = StepGraphs(learn, update.backward, update.params)
    for size in (4, 4, 2, 4, 4, 4, 2, 2, 2):
        x, y = torch.rand(size, 3, device=CUDA), torch.rand(size, 1, device=CUDA)
        loss, metrics = graphs.forward("kind", x, y)
        graphs.backward(loss)
        expected = (net(x) - y).square().mean()
        torch.testing.assert_close(metrics["loss"].cpu(), expected.detach().cpu())
        torch.testing.assert_close(net.weight.grad.cpu(), torch.autograd.grad(expected, net.weight)[0].cpu())
        net.zero_grad()
    assert calls == [4, 4, 2, 4, 4, 2, 2, 2][: len(calls)] and len(graphs.recorded) == 2
    assert calls.count(4) == WARM + 1 and calls.count(2) == WARM + 1


@NEEDS_GPU
def test_a_step_that_synchronises_runs_without_a_graph():
    net = torch.nn.Linear(3, 1).to(CUDA)
    update = make_update(net)

    def learn(x: torch.Tensor) -> tuple[torch.Tensor, dict]:
        loss = net(x).square().mean()
        return loss * (2 if loss.item() > 0 else 1), {}

    graphs = StepGraphs(learn, update.backward, update.params)
    x = torch.rand(4, 3, device=CUDA)
    for step in range(6):
        if step == WARM:
            with pytest.warns(UserWarning, match="steps run without CUDA graphs: .*captur"):
                loss, _ = graphs.forward("kind", x)
        else:
            loss, _ = graphs.forward("kind", x)
        graphs.backward(loss)
        assert net.weight.grad is not None
        net.zero_grad()


@pytest.mark.skipif(runs.DEVICE == "cuda", reason="a GPU is here")
def test_a_cpu_has_no_graphs(tmp_path):
    runs.write_mnist(tmp_path)
    for value in ("auto", "false"):
        assert (
            Session(*runs.compose(*runs.SMALL, f"data_dir={tmp_path}", f"trainer.cuda_graph={value}")).task.graphs
            is None
        )
    with pytest.raises(
        UserError, match="trainer.cuda_graph=true: the device is cpu\n  expected trainer.cuda_graph=auto"
    ):
        Session(*runs.compose(*runs.SMALL, f"data_dir={tmp_path}", "trainer.cuda_graph=true"))


def test_reasons_against_graphs_are_given():
    assert why_not(torch.device("cuda", 0), False, 1) == ""
    assert "trainer.compile=true" in why_not(CUDA, True, 1) and "2 processes" in why_not(CUDA, False, 2)
