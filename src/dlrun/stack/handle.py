"""A parameter of one job that stands for those of all jobs, and the functions that are called with one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlrun.stack.axes import per_job
from dlrun.stack.functions import FUNCTIONS, NotStackable
from dlrun.stack.recurrent import CELLS


class Handle(torch.Tensor):
    """Stands for one job's parameter or buffer, or a value computed from it, and holds those of all K jobs.

    stack: the values of all jobs (K, *shape). owner: for messages, such as "fc.weight of Linear".
    """

    stack: Tensor
    owner: str

    @classmethod
    def of(cls, tensor: Tensor, stack: Tensor, owner: str) -> "Handle":
        """tensor: has the shape and the type of one job's."""
        handle = tensor.detach().as_subclass(cls)
        handle.stack, handle.owner = stack, owner
        return handle

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OF_ONE:
            return super().__torch_function__(func, types, args, kwargs or {})
        function = STACKED.get(func) or partial(of_each, func)
        return function(*args, **kwargs) if kwargs else function(*args)


STACKED = FUNCTIONS | CELLS
OF_ONE = {getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim")}
OF_ONE |= {getattr(torch.Tensor, name).__get__ for name in ("is_cuda", "is_meta", "layout", "is_mps", "is_cpu")}
OF_ONE |= {getattr(torch.Tensor, name) for name in ("size", "dim", "numel", "is_floating_point", "stride", "__len__")}


def of_each(func: Callable, *args: Any, **keys: Any) -> Any:
    """Apply a function of handles and of tensors (K * B, ...) to each job's: (K * B, ...), or a handle without such
    tensors. A tensor of another kind gives other results than the jobs alone, which stack/trial.py notices.
    """
    handles = [arg for arg in args if isinstance(arg, Handle)]
    name = getattr(func, "__name__", str(func))
    lists = [keys.values(), *(arg for arg in args if isinstance(arg, list | tuple))]
    nested = [each for some in lists for each in some if isinstance(each, Handle)]
    owner = next((handle.owner for handle in (*handles, *nested)), "a parameter")
    k = len(handles[0].stack) if handles else 0
    batched = [isinstance(arg, Tensor) and not isinstance(arg, Handle) and arg.dim() > 0 for arg in args]
    try:
        if not handles or nested or (name.endswith("_") and not name.endswith("__")):  # in place
            raise ValueError
        parts = [
            arg.stack if isinstance(arg, Handle) else per_job(arg, k) if is_batched else arg
            for arg, is_batched in zip(args, batched, strict=True)
        ]
        axes = [0 if isinstance(arg, Handle) or some else None for arg, some in zip(args, batched, strict=True)]
        out = torch.vmap(partial(func, **keys), in_dims=tuple(axes))(*parts)
        if not isinstance(out, Tensor):
            raise TypeError
    except (RuntimeError, TypeError, ValueError):
        raise NotStackable(f"{owner}: {name} has no stacked form") from None
    return out.flatten(0, 1) if any(batched) else Handle.of(out[0], out, owner)
