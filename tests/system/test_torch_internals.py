"""torch's private parts are used in one module, and each still behaves as that module expects."""

import ast
import inspect
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from runs import FORKS
from torch import nn

from dlrun.system import torch_internals
from dlrun.system.torch_internals import (
    BatchNorm,
    DispatchMode,
    DropoutBase,
    check_overflow_first,
    configure_compiler,
    cpu_has_bf16,
    cpu_has_tiles,
    is_in_place,
    kernel,
    out_form,
    own_tensors,
    plain_step,
    quick_step,
    refresh_flat_weights,
    skip_compiler_import,
)

SRC = Path(__file__).parents[2] / "src"
OPTIMIZERS = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop]


def is_private(word):
    return word.startswith("_") and not word.startswith(("__", "_foreach"))


@cache
def attributes():
    """Private attributes of torch's objects."""
    skip_compiler_import()
    objects = (nn.LSTM(1, 1), nn.BatchNorm2d(1), torch.optim.Adam(nn.Linear(1, 1).parameters()))
    return {name for each in objects for name in (*vars(each), *dir(type(each))) if is_private(name)}


def private_names(path):
    """Private names of torch that a file uses, as file:line name. torch._foreach_* is documented."""
    text = path.read_text(encoding="utf-8")
    may = re.search(r"(?<!self)\._|from torch", text)  # parsing all files would take seconds
    for node in ast.walk(ast.parse(text)) if may else ():
        name = ast.unparse(node) if isinstance(node, ast.Attribute) and is_private(node.attr) else ""
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            name = ".".join([node.module, *(alias.name for alias in node.names)])
        words = name.split(".")
        is_of_torch = words[0] in ("torch", "nn", "F") and any(is_private(word) for word in words)
        if is_of_torch or words[-1] in attributes() and words[:-1] not in ([], ["self"]):
            yield f"{path.relative_to(SRC)}:{node.lineno} {name}"


def test_private_parts_of_torch_are_used_in_one_module_only():
    used = {path: list(private_names(path)) for path in SRC.rglob("*.py")}
    home = Path(inspect.getfile(torch_internals))
    assert used.pop(home)  # the search itself works
    assert [line for lines in used.values() for line in lines] == []


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_plain_step_equals_the_optimizers_own(make):
    skip_compiler_import()
    nets = [nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    both = [make(net.parameters(), lr=0.1) for net in nets]
    for _ in range(3):
        for net, optimizer in zip(nets, both, strict=True):
            optimizer.zero_grad()
            net(torch.ones(4, 3)).square().sum().backward()
        both[0].step()
        with torch.no_grad():
            plain_step(both[1])()
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert hasattr(type(both[1]).step, "__wrapped__"), "torch no longer wraps the step: plain_step saves nothing"


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_quick_step_equals_the_optimizers_own(make):
    """With two groups, a rate that changes, a step in which a parameter has no gradient, and a state that is loaded."""
    nets = [nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    both = [
        make(
            [{"params": each.parameters(), "weight_decay": 0.1 * i} for i, each in enumerate(net)], lr=0.01, fused=True
        )
        for net in nets
    ]
    step = quick_step(both[1])
    for at in range(8):
        for net, optimizer in zip(nets, both, strict=True):
            optimizer.zero_grad()
            net(torch.ones(4, 3)).square().sum().backward()
            optimizer.param_groups[0]["lr"] = 0.01 / (at + 1)
            if at == 4:
                net[1].bias.grad = None
        both[0].step()
        with torch.no_grad():
            step()
        if at == 5:
            both[1].load_state_dict(both[1].state_dict())
            step = quick_step(both[1])
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
    wanted, found = (optimizer.state_dict()["state"] for optimizer in both)
    assert all(
        torch.equal(value, found[k][name])
        for k, state in wanted.items()
        for name, value in state.items()
        if value is not None
    )


def test_optimizers_do_not_import_the_compiler():
    """In a process of its own, since another test may have imported the compiler in this one."""
    process = FORKS.Process(target=use_optimizers)
    process.start()
    process.join()
    assert process.exitcode == 0


def use_optimizers():
    assert "torch._dynamo" not in sys.modules, "the process that forks has imported the compiler"
    skip_compiler_import()
    for make in OPTIMIZERS:
        p = torch.nn.Parameter(torch.ones(2))
        optimizer = make([{"params": [p]}], lr=0.1)
        p.grad = torch.ones(2)
        with torch.no_grad():
            plain_step(optimizer)()
        optimizer.load_state_dict(optimizer.state_dict())
    sys.exit("torch._dynamo" in sys.modules)


def test_the_scaler_checks_overflow_first():
    assert "_step_supports_amp_scaling" in inspect.getsource(torch.amp.GradScaler.step)
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, fused=True)
    assert optimizer._step_supports_amp_scaling  # torch's own value for fused optimizers
    check_overflow_first(optimizer, True)
    assert not optimizer._step_supports_amp_scaling


@pytest.mark.thorough
def test_the_compiler_has_these_options():
    """torch's config modules refuse a name that they do not know."""
    import torch._dynamo
    import torch._inductor.config as inductor

    before = inductor.deterministic, torch._dynamo.config.wrap_top_frame, torch._dynamo.config.recompile_limit
    try:
        configure_compiler(deterministic=True)
        assert inductor.deterministic and torch._dynamo.config.wrap_top_frame
        with pytest.raises(AttributeError):
            inductor.deterministic_ = True
        with pytest.raises(AttributeError):
            torch._dynamo.config.wrap_the_top_frame = True
    finally:
        inductor.deterministic, torch._dynamo.config.wrap_top_frame, torch._dynamo.config.recompile_limit = before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_bf16_support_is_that_of_the_cpu_flags():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert cpu_has_bf16() == ("avx512_bf16" in flags or "amx_tile" in flags)
    assert cpu_has_tiles() == ("amx_tile" in flags)


def test_all_batch_normalisations_share_a_base():
    for norm in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
        assert issubclass(norm, BatchNorm)
    assert not issubclass(nn.GroupNorm, BatchNorm)


def test_all_dropouts_share_a_base():
    for dropout in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout):
        assert issubclass(dropout, DropoutBase)


def test_a_recurrent_layer_computes_with_the_tensors_in_its_dictionary():
    layer, other = nn.LSTM(2, 3), nn.LSTM(2, 3)
    params, _ = own_tensors(layer)
    params.update({name: param.detach() for name, param in other.named_parameters()})
    refresh_flat_weights(layer)
    x = torch.ones(4, 1, 2)
    assert torch.equal(layer(x)[0], other(x)[0])


def test_tensors_in_a_modules_own_dictionaries_stand_for_its_parameters():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    assert [sorted(each) for each in own_tensors(net)] == [[], []], "those of its children are theirs"
    params, buffers = own_tensors(net[1])
    assert sorted(params) == ["bias", "weight"]
    assert sorted(buffers) == ["num_batches_tracked", "running_mean", "running_var"]
    own_tensors(net[0])[0]["weight"] = torch.tensor([[3.0]]) * 2
    assert net[0](torch.ones(1, 1)).item() == 6


ATEN = torch.ops.aten


@pytest.mark.parametrize(
    "operation, outs, writes",
    [
        (ATEN.add.Tensor, ["out"], False),
        (ATEN.add_.Tensor, None, True),
        (ATEN.view.default, None, False),
        (ATEN.native_batch_norm.default, ["out", "save_mean", "save_invstd"], False),
        (ATEN._native_batch_norm_legit.default, ["out", "save_mean", "save_invstd"], True),
        (ATEN.max.dim, ["max", "max_values"], False),
    ],
)
def test_which_operations_write_into_their_arguments_or_into_given_tensors(operation, outs, writes):
    form = out_form(operation)
    assert (form and form[1]) == outs
    assert is_in_place(operation) is writes


def test_the_form_of_an_operation_for_given_tensors_computes_the_same():
    x, given = torch.tensor([1.0, 3.0, 2.0]), torch.empty(3)
    form, (name,) = out_form(ATEN.add.Tensor)
    kernel(form)(x, x, alpha=2, **{name: given})
    assert given.tolist() == ATEN.add.Tensor(x, x, alpha=2).tolist() == [3, 9, 6]


def test_a_dispatch_mode_does_not_import_the_compiler():
    process = FORKS.Process(target=dispatch)
    process.start()
    process.join()
    assert process.exitcode == 0


def dispatch():
    seen = []

    class Seen(DispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    weight = torch.ones(3, requires_grad=True)
    with Seen():
        (weight * 2).sum().backward()
    assert ATEN.mul.Tensor in seen
    sys.exit("torch._dynamo" in sys.modules)
