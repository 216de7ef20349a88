"""Export a finished run's model to a file. Before the file is kept, it is read back and checked on samples: real ones
if the data is here, else random ones.

Graphs (pt2, onnx) take raw data as it is stored (uint8 images, rows in their own units, word ids) and return what
`dl-runs predict` returns (probabilities, real outputs, images in [0, 1]): normalisation is part of the graph. Weights
(safetensors, state_dict) are those of the network alone. Labels, words, mean and std are in the file under "dlrun",
except in a state_dict, which cannot hold them.
"""

import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

import dlrun
from dlrun.config.saved import own_config
from dlrun.data.base import EnvData, pixel_statistics
from dlrun.data.raw import decode
from dlrun.errors import DataError, UserError, counted
from dlrun.output.failures import within_memory
from dlrun.runs.formats import SUFFIXES
from dlrun.runs.predict import class_names, encode
from dlrun.runs.written import whole
from dlrun.seeds import generator
from dlrun.spec import Columns, Env, Function, Image, Mask, Tokens
from dlrun.train.finished import FinishedRun

if TYPE_CHECKING:
    import onnx

SAMPLES = 33  # samples to compare, in batches of 1, 2 and the rest
TOLERANCE = 1e-5  # absolute for numbers up to 1, relative for greater ones
FP32 = {"trainer.device": "cpu", "trainer.precision": "fp32", "trainer.compile": False}
Model = Callable[[Tensor], Tensor]


class Graph(nn.Module):
    """The run's prediction as one module that takes stored data. way: the kind of input, one of Task.takes."""

    def __init__(self, run: FinishedRun, way: str) -> None:
        super().__init__()
        self.net = run.task.evaluated()
        self.run, self.encodes = run, way in ("inputs", "images") and not isinstance(run.data.spec, Tokens)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.run.task.predict(encode(self.run, self.way, x) if self.encodes else x)


def export(folder: Path, form: str, out: Path | None) -> Iterator[str]:
    """Write and check the file; yield lines to print. Raises UserError if its outputs differ from the run's."""
    out = out or folder / "export" / f"model{SUFFIXES[form]}"
    own_config(folder)  # report its errors before keys are changed
    with within_memory():
        run = FinishedRun(folder, FP32)
        way = run.task.takes[0]
        graph = Graph(run, way).eval()
        samples, description = samples_of(run, way)
        with torch.no_grad():
            wanted = [graph(x) for x in batches(samples)]
        with whole(out, SUFFIXES[form]) as temporary:
            out.parent.mkdir(parents=True, exist_ok=True)
            write(form, run, graph, samples, temporary)
            model = READERS[form](folder, way, temporary)
            with torch.no_grad():
                worst = compare([model(x) for x in batches(samples)], wanted, form)
    yield f"{out}  {out.stat().st_size / 1e6:.1f} MB"
    for name, text in run.table_data.report()["files"].items() if isinstance(run.data.spec, Columns) else ():
        with whole(out.parent / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        yield f"{out.parent / name}  how rows become inputs"
    yield from (f"  {name:7} {value}" for name, value in facts(run, graph, samples, wanted[0], form).items())
    sizes = ", ".join(str(len(batch)) for batch in batches(samples))
    yield f"  checked {description} in batches of {sizes}: within {worst:.1e}, limit {TOLERANCE:g}"


def write(form: str, run: FinishedRun, graph: Graph, samples: Tensor, path: Path) -> None:
    """Write the file. Raises UserError if torch cannot export the model; exporters can raise any exception."""
    try:
        WRITERS[form](run, graph, samples, path)
    except (OSError, UserError):
        raise
    except Exception as error:
        message = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torch cannot export {run.names.get('model')} as {form}: {type(error).__name__}: {message}\n"
            f"  expected another --format: {', '.join(name for name in WRITERS if name != form)}"
        ) from error


def facts(run: FinishedRun, graph: Graph, samples: Tensor, output: Tensor, form: str) -> dict[str, str]:
    """Describe the model's inputs and outputs."""
    if form in ("safetensors", "state_dict"):
        count = sum(value.numel() for value in run.task.best_state().values())
        return {"holds": f"{counted(count, 'weight')} of the network, which takes normalised inputs"}
    return {"takes": _described(samples), "returns": _described(output)}


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} (batch{''.join(f', {size}' for size in x.shape[1:])})"


def notes(run: FinishedRun) -> dict[str, object]:
    """Return the facts needed to use the model without the run."""
    spec, names = run.data.spec, run.names
    found: dict[str, object] = {"model": names.get("model"), "data": names.get("data"), "dlrun": dlrun.__version__}
    found |= {"task": names.get("task"), "weights": run.weights, "spec": str(spec), **run.data.fitted()}
    if not isinstance(spec, Env | Function) and spec.classes:
        found["labels"] = class_names(spec)
    if isinstance(spec, Image | Mask):
        mean, std = pixel_statistics(run.data) or (None, None)
        found |= {"mean": mean, "std": std}
    return found


def samples_of(run: FinishedRun, way: str) -> tuple[Tensor, str]:
    """Return SAMPLES stored inputs and their description.

    They come from the test split (repeated if it is smaller), or are drawn if the data or the environment is not here,
    since data is not downloaded for a check. Generative runs get random codes, policies get observations.
    """
    if way == "latent":
        latent = cast(int, run.task.net.latent)
        return torch.randn(SAMPLES, latent, generator=generator("cpu", 0, 0)), f"{SAMPLES} codes"
    if way == "episodes":
        try:
            envs = cast(EnvData, run.data).make(SAMPLES)
        except UserError as error:
            return drawn(run), f"{SAMPLES} drawn observations ({str(error).splitlines()[0]})"
        try:
            return torch.as_tensor(envs.reset(0), dtype=torch.float32), f"{SAMPLES} observations"
        finally:
            envs.close()
    try:
        run.load_data(download=False)
    except DataError as error:
        return drawn(run), f"{SAMPLES} drawn samples ({str(error).splitlines()[0]})"
    data, inputs, needed = run.sample_data, list[Tensor](), SAMPLES
    for x, _ in data.batches("test"):
        inputs.append(x[:needed].cpu())
        needed -= len(inputs[-1])
        if not needed:
            break
    x = torch.cat(inputs)
    x = x if isinstance(data.spec, Tokens) else cast(Tensor, decode(data, x))  # only tokens become texts
    return x[torch.arange(SAMPLES) % len(x)], f"{len(x)} real sample{'s' * (len(x) > 1)}"


def drawn(run: FinishedRun) -> Tensor:
    """Draw SAMPLES inputs that resemble stored ones, from the spec and the fitted statistics of the data."""
    spec, random = run.data.spec, generator("cpu", 0, 0)
    shape = (SAMPLES, *getattr(run.data, "stored", spec.shape))
    if isinstance(spec, Tokens):
        return torch.randint(spec.vocab, shape, generator=random)
    if isinstance(spec, Image | Mask):
        return torch.randint(256, shape, generator=random, dtype=torch.uint8)
    if isinstance(spec, Env) and spec.states:
        return torch.eye(spec.features)[torch.arange(SAMPLES) % spec.features]
    if isinstance(spec, Env):
        return torch.randn(shape, generator=random)
    rows = torch.randn(shape, generator=random)
    if isinstance(spec, Columns):
        for i, count in enumerate(spec.levels, spec.numbers):
            rows[:, i] = torch.randint(count + 1, (SAMPLES,), generator=random)
    return cast(Tensor, decode(run.sample_data, rows))


def batches(samples: Tensor) -> list[Tensor]:
    """Split samples into batches of several sizes: an exported graph must not be fixed to one."""
    return [batch for batch in (samples[:1], samples[1:3], samples[3:]) if len(batch)]


def compare(found: list[Tensor], wanted: list[Tensor], form: str) -> float:
    """Return the largest difference, relative for numbers above 1. Raises UserError if it exceeds TOLERANCE."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, wanted, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        raise UserError(
            f"the {form} file returns another shape than the run: it was not kept\n  expected the same outputs"
        )
    worst = max(((a - b).abs() / b.abs().clamp(min=1)).max().item() for a, b in pairs)
    if not worst <= TOLERANCE:
        raise UserError(
            f"the {form} file's outputs differ from the run's by up to {worst:.1e}: it was not kept\n"
            f"  expected at most {TOLERANCE:g}; another --format may be exact enough"
        )
    return worst


def write_pt2(run: FinishedRun, graph: Graph, samples: Tensor, path: Path) -> None:
    program, buffer = traced(graph, samples), io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={"dlrun": json.dumps(notes(run))})
    path.write_bytes(buffer.getbuffer())  # torch's own writer ends the process if the disk is full


def traced(graph: Graph, samples: Tensor) -> torch.export.ExportedProgram:
    """Trace the graph with a dynamic batch size, without auxiliary heads, which only training uses."""
    for name in [name for name, _ in graph.net.named_children() if name.startswith("aux")]:
        delattr(graph.net, name)
    with torch.no_grad(), quiet():
        return torch.export.export(graph, (samples[1:3],), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def write_onnx(run: FinishedRun, graph: Graph, samples: Tensor, path: Path) -> None:
    import onnx

    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            traced(graph, samples), (), dynamo=True, verbose=False, input_names=["x"], output_names=["y"]
        )
    model = cast(torch.onnx.ONNXProgram, program).model_proto  # dynamo returns one
    name_batch(model.graph)
    onnx.helper.set_model_props(model, {"dlrun": json.dumps(notes(run))})
    onnx.save(model, path)


def name_batch(graph: "onnx.GraphProto") -> None:
    """Name the batch dimension `batch` instead of the exporter's name, such as s77."""
    found = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(rf"\b{re.escape(found)}\b", "batch", size.dim_param)


def write_safetensors(run: FinishedRun, graph: Graph, samples: Tensor, path: Path) -> None:
    from safetensors.torch import save

    # cloned, because safetensors refuses tensors that share memory
    state = {name: value.detach().clone().contiguous() for name, value in run.task.best_state().items()}
    path.write_bytes(
        save(state, {"dlrun": json.dumps(notes(run))})
    )  # save_file would make it readable by its owner only


def write_state_dict(run: FinishedRun, graph: Graph, samples: Tensor, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({name: value.detach().clone() for name, value in run.task.best_state().items()}, buffer)
    path.write_bytes(buffer.getbuffer())


def read_pt2(folder: Path, way: str, path: Path) -> Model:
    with quiet():
        return torch.export.load(path).module()


def read_onnx(folder: Path, way: str, path: Path) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def read_safetensors(folder: Path, way: str, path: Path) -> Model:
    from safetensors.torch import load_file

    return _with_weights(folder, way, load_file(path))


def read_state_dict(folder: Path, way: str, path: Path) -> Model:
    return _with_weights(folder, way, torch.load(path, weights_only=True))


def _with_weights(folder: Path, way: str, state: dict[str, Tensor]) -> Model:
    """Build the network anew and load only these weights; all others are NaN."""
    run = FinishedRun(folder, FP32)
    for parameter in run.task.net.parameters():
        parameter.data.fill_(float("nan"))
    run.task.load_best_state(state)
    return Graph(run, way).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' warnings, which concern their own code."""
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
        before = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


WRITERS = {"pt2": write_pt2, "onnx": write_onnx, "safetensors": write_safetensors, "state_dict": write_state_dict}
READERS = {"pt2": read_pt2, "onnx": read_onnx, "safetensors": read_safetensors, "state_dict": read_state_dict}
