"""A fake GPU for machines without one, as a plugin of pytest: it stores and computes on the host.

It is as strict as a real one. Tensors of two devices do not mix, generators neither; NumPy cannot read what is on it;
it draws from a generator of its own; and what CUDA cannot do in the same way every time is refused where
trainer.deterministic wants it. So it finds errors that would stop a run on CUDA, but nothing about speed or rounding.
"""

import ctypes
import shutil
import subprocess
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path


def build() -> None:
    """Compile the C++ part of a device, and load it before torch looks for devices."""
    torch = Path(find_spec("torch").origin).parent
    out = Path(tempfile.mkdtemp(prefix="fake-gpu-")) / "gpu.so"
    source, here = Path(__file__).with_suffix(".cpp"), ["-o", str(out), "-lc10", "-ltorch_cpu"]
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{torch / 'include'}", f"-L{torch / 'lib'}", str(source)]
    subprocess.run(command + here, check=True)
    for library in (torch / "lib" / "libc10.so", torch / "lib" / "libtorch_cpu.so", out):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    shutil.rmtree(out.parent)


build()

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map_only  # noqa: E402

GPU = torch.device("cuda", 0)
COPIES = {"copy_", "_to_copy"}  # from device to device
DRAWS = {
    "_sample_dirichlet",
    "bernoulli", "bernoulli_", "exponential_", "multinomial", "native_dropout", "normal", "normal_", "rand",
    "rand_like", "randint", "randn", "randn_like", "random_", "randperm", "uniform_",
}  # fmt: skip
REFUSED = {  # by CUDA where it is to be deterministic: torch.use_deterministic_algorithms
    "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward",
    "grid_sampler_2d_backward", "histc",
    "max_unpool2d", "put_", "reflection_pad2d_backward", "upsample_bilinear2d_backward",
}  # fmt: skip


class OnGpu(torch.Tensor):
    """A tensor that claims to be on the GPU. host: its content."""

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> "OnGpu":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype, device=GPU
        )
        tensor.host = host
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnGpu({self.host})"

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        if id(self) not in memo:
            new = OnGpu(self.host.clone())
            is_param = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(new, self.requires_grad) if is_param else new
        return memo[id(self)]

    def tolist(self) -> list:
        return self.host.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy


class OnHost(TorchDispatchMode):
    """Intercepts functions that make tensors, or that mix tensors of both devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


def call(func, args: tuple, kwargs: dict) -> object:
    """An operation, done on the host, as the GPU would do it or refuse it."""
    name, leaves = func.__name__.partition(".")[0], tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    on_gpu = {id(leaf.host): leaf for leaf in tensors if isinstance(leaf, OnGpu)}
    to = kwargs.get("device")
    makes = torch.device(to).type == "cuda" if to is not None else bool(on_gpu)
    if on_gpu and name not in COPIES and "index" not in name:  # indices may come from the host, and numbers
        strange = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim()]
        assert not strange, f"{func}: expected all tensors to be on the same device, found cuda:0 and cpu"
    if on_gpu and torch.are_deterministic_algorithms_enabled():
        refused = name in REFUSED or name == "nll_loss2d_forward" and args[3] != 0
        refused |= name == "cumsum" and args[0].is_floating_point()
        refused |= name == "bincount" and len(args) > 1 and args[1] is not None
        assert not refused, f"{func} does not have a deterministic implementation"
    generators = [leaf for leaf in leaves if isinstance(leaf, HostGenerator)]
    for generator in generators:
        assert (generator._cdata in GENERATORS) == bool(makes or on_gpu), f"{func}: a generator of another device"
    if to is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    args_on_host, kwargs_on_host = tree_map_only(OnGpu, lambda tensor: tensor.host, (args, kwargs))
    if RECORDING and (on_gpu or makes):
        assert_recordable(func, name, to, tensors)
        keep_written(func, args_on_host, kwargs_on_host)
    draw = drawing if (makes or on_gpu) and not generators and name in DRAWS else plainly
    found = draw(func, args_on_host, kwargs_on_host)
    if RECORDING and (on_gpu or makes):
        RECORDING[-1].steps.append((draw, func, args_on_host, kwargs_on_host, found))
    if name == "copy_":
        return args[0]
    if not makes:
        return found
    return tree_map_only(torch.Tensor, lambda host: on_gpu[id(host)] if id(host) in on_gpu else OnGpu(host), found)


def plainly(func, args: tuple, kwargs: dict) -> object:
    return func(*args, **kwargs)


def drawing(func, args: tuple, kwargs: dict) -> object:
    """From the GPU's own generator, not from the host's."""
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(DEFAULT.get_state())
    try:
        return func(*args, **kwargs)
    finally:
        DEFAULT.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


class Graph:
    """A CUDA graph: the operations of a recording, on the tensors that it was recorded with."""

    def __init__(self) -> None:
        self.steps: list[tuple] = []
        self.written: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def pool(self) -> tuple[int, int]:
        return 0, 0

    def replay(self) -> None:
        for draw, func, args, kwargs, found in self.steps:
            again = draw(func, args, kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Recording:
    """Stands for torch.cuda.graph: calls inside are recorded and change no existing tensor."""

    def __init__(self, graph: Graph, pool: object = None, stream: object = None, capture_error_mode: str = "global"):
        self.graph = graph

    def __enter__(self) -> None:
        self.state = DEFAULT.get_state()
        RECORDING.append(self.graph)

    def __exit__(self, *error: object) -> None:
        RECORDING.pop()
        DEFAULT.set_state(self.state)
        for host, before in self.graph.written.values():
            host.copy_(before)


RECORDING: list[Graph] = []


def keep_written(func, args: tuple, kwargs: dict) -> None:
    """Keep copies of the tensors that an operation writes to, from before the recording."""
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if is_written or "batch_norm" in func.__name__ and argument.name.startswith("running"):  # not in its schema
            for host in tree_leaves(value):
                if isinstance(host, torch.Tensor):
                    RECORDING[-1].written.setdefault(id(host), (host, host.clone()))


def assert_recordable(func, name: str, to: object, tensors: list) -> None:
    """Refuse operations that wait for the GPU or copy from or to the host, as CUDA does while it records."""
    waits = name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")
    waits |= name in COPIES and any(not isinstance(tensor, OnGpu) for tensor in tensors)
    waits |= name == "_to_copy" and to is not None and torch.device(to).type == "cpu"
    if waits:
        raise RuntimeError(f"{func}: operation not permitted when stream is capturing")


HostGenerator = torch.Generator
GENERATORS: set[int] = set()  # the GPU's: a generator comes back from torch as another object of the same address


class GpuGenerator(HostGenerator):
    device = GPU

    def __new__(cls):
        made = HostGenerator.__new__(cls, "cpu")
        GENERATORS.add(made._cdata)
        return made

    def __del__(self) -> None:
        GENERATORS.discard(self._cdata)


class Event:
    def record(self) -> None: ...

    def synchronize(self) -> None: ...


class Generator:
    """Stands for torch.Generator(device)."""

    def __new__(cls, device: object = "cpu"):
        return GpuGenerator() if torch.device(device).type == "cuda" else HostGenerator(device)


def on_device(make):
    """Wrap torch.tensor and similar functions, which do not pass through `call`."""

    def made(data, *args, device=None, **kwargs):
        to_gpu = device is not None and torch.device(device).type == "cuda"
        if isinstance(data, OnGpu):
            tensor = data if to_gpu or device is None else data.to(device)
        else:
            tensor = make(data, *args, **kwargs) if to_gpu or device is None else make(data, device=device, **kwargs)
        return tensor.to(GPU) if to_gpu else tensor

    return made


def to(self: torch.nn.Module, *args, _to=torch.nn.Module.to, **kwargs) -> torch.nn.Module:
    """In place, as it is on a GPU: the optimizer holds the parameters that the module has."""
    for module in self.modules():
        if isinstance(module, torch.nn.RNNBase):
            module._flat_weight_refs = []  # nothing that is referred to weakly can be swapped
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _to(self, *args, **kwargs)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def run(self: threading.Thread, _run=threading.Thread.run) -> None:
    with OnHost():  # which is each thread's own
        _run(self)


def pretend() -> None:
    cuda = torch.cuda
    DEFAULT.manual_seed(1)
    cuda.init = cuda._lazy_init = lambda: None
    cuda.is_available = lambda: True
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.current_device, cuda.device_count = lambda: 0, lambda: 1
    cuda.set_device = lambda device: None
    cuda.get_device_name = lambda device=None: "fake"
    cuda.max_memory_allocated = lambda device=None: 0
    cuda.mem_get_info = lambda device=None: (2**36, 2**36)
    cuda.CUDAGraph, cuda.graph = Graph, Recording
    cuda.default_generators, cuda.Event = (DEFAULT,), Event
    torch.backends.cudnn.is_acceptable = lambda tensor: False
    torch.amp.autocast_mode.amp_definitely_not_available = lambda: False
    torch.amp.grad_scaler.amp_definitely_not_available = lambda: False
    torch.Generator, torch.nn.Module.to, threading.Thread.run = Generator, to, run
    torch.tensor, torch.as_tensor = on_device(torch.tensor), on_device(torch.as_tensor)
    torch.empty = lambda *size, _empty=torch.empty, pin_memory=False, **keys: _empty(*size, **keys)
    OnHost().__enter__()


DEFAULT = GpuGenerator()
pretend()


def pytest_collection_finish() -> None:
    import test_resume

    test_resume.NARROW["cell"] = "loop"  # a build of torch without CUDA has not its recurrent cells
