"""The file formats of an exported model: how each is written and read back.

Graphs (pt2, onnx) take raw data as it is stored (uint8 images, rows in their own units, word ids) and return what
`dl-runs predict` returns (probabilities, real outputs, images in [0, 1]): normalisation is part of the graph. Weights
(safetensors, state_dict) are those of the network alone. Labels, the threshold, words, mean and std are in the file
under "dlrun", except in a state_dict, which cannot hold them.
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
from dlrun.data.base import pixel_statistics
from dlrun.runs.predict import encode
from dlrun.runs.records import class_names
from dlrun.spec import Env, Function, Image, Mask, Tokens
from dlrun.train.finished import FinishedRun

if TYPE_CHECKING:
    import onnx

FP32 = {"trainer.device": "cpu", "trainer.precision": "fp32", "trainer.compile": False}
Model = Callable[[Tensor], Tensor]


class Graph(nn.Module):
    """The run's prediction as one module that takes stored data. way: the kind of input, one of Task.accepts."""

    def __init__(self, run: FinishedRun, way: str) -> None:
        super().__init__()
        self.net = run.task.evaluated()
        self.run, self.encodes = run, way in ("inputs", "images") and not isinstance(run.data.spec, Tokens)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.run.task.predict(encode(self.run, self.way, x) if self.encodes else x)


def notes(run: FinishedRun) -> dict[str, object]:
    """Return the facts needed to use the model without the run."""
    spec, names = run.data.spec, run.names
    entries: dict[str, object] = {"model": names.get("model"), "data": names.get("data"), "dlrun": dlrun.__version__}
    entries |= {"task": names.get("task"), "weights": run.weights, "spec": str(spec), **run.data.fitted()}
    if not isinstance(spec, Env | Function) and spec.classes:
        entries["labels"] = class_names(spec)
    if run.task.threshold is not None:
        entries["threshold"] = run.task.threshold
    if isinstance(spec, Image | Mask):
        mean, std = pixel_statistics(run.data) or (None, None)
        entries |= {"mean": mean, "std": std}
    return entries


def write_pt2(run: FinishedRun, graph: Graph, samples: Tensor, path: Path) -> None:
    program, buffer = traced(graph, samples), io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={"dlrun": json.dumps(notes(run))})
    path.write_bytes(buffer.getbuffer())  # torch's own writer ends the process if the disk is full


def traced(graph: Graph, samples: Tensor) -> torch.export.ExportedProgram:
    """Trace the graph with a dynamic batch size, without auxiliary heads, which only training uses."""
    for net in list(graph.net.modules()):
        for name in [name for name, _ in net.named_children() if name.startswith("aux")]:
            delattr(net, name)
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
    name = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(rf"\b{re.escape(name)}\b", "batch", size.dim_param)


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
