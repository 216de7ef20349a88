"""Export a finished run's model to a file. Before the file is kept, it is read back and checked on samples: real ones
if the data is here, else random ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from dlrun.config.saved import own_config
from dlrun.data.base import EnvData
from dlrun.data.raw import decode
from dlrun.errors import DataError, UserError, counted, first_line
from dlrun.output.as_json import as_json
from dlrun.output.failures import within_memory
from dlrun.output.written import whole
from dlrun.runs.formats import SUFFIXES
from dlrun.runs.model_files import FP32, READERS, WRITERS, Graph
from dlrun.seeds import generator
from dlrun.spec import Columns, Env, Image, Mask, Tokens
from dlrun.train.finished import FinishedRun

SAMPLES = 33  # samples to compare, in batches of 1, 2 and the rest
TOLERANCE = 1e-5  # absolute for numbers up to 1, relative for greater ones


def export(folder: Path, form: str, out: Path | None) -> Iterator[str]:
    """Write and check the file; yield lines to print. Raises UserError if its outputs differ from the run's."""
    own_config(folder)  # report its errors before keys are changed
    with within_memory():
        run = FinishedRun(folder, FP32)
    yield from exported(run, form, out or folder / "export" / f"model{SUFFIXES[form]}")


def exported(run: FinishedRun, form: str, out: Path) -> Iterator[str]:
    """Export a run that was rebuilt with FP32; see `export`."""
    with within_memory():
        way = run.task.accepts[0]
        graph = Graph(run, way).eval()
        samples, description = samples_of(run, way)
        with torch.no_grad():
            wanted = [graph(x) for x in batches(samples)]
        with whole(out, SUFFIXES[form]) as temporary:
            out.parent.mkdir(parents=True, exist_ok=True)
            write(form, run, graph, samples, temporary)
            model = READERS[form](run.folder, way, temporary)
            with torch.no_grad():
                worst = compare([model(x) for x in batches(samples)], wanted, form)
    yield f"{out}  {out.stat().st_size / 1e6:.1f} MB"
    if isinstance(run.data.spec, Columns):
        yield f"{write_encoding(run, out.parent)}  how rows become inputs"
    yield from (f"  {name:7} {value}" for name, value in facts(run, graph, samples, wanted[0], form).items())
    sizes = ", ".join(str(len(batch)) for batch in batches(samples))
    yield f"  checked {description} in batches of {sizes}: within {worst:.1e}, limit {TOLERANCE:g}"


def write_encoding(run: FinishedRun, folder: Path) -> Path:
    """Write how raw rows become inputs (data/table/encode.py), and return the file.

    Beside the run's encoding it has "missing", the texts that mean "no value", and of two classes "threshold".
    """
    encoding = {**run.data.fitted(), "missing": list(run.table_data.form.missing)}
    if run.task.threshold is not None:
        encoding["threshold"] = run.task.threshold
    path = folder / "encoding.json"
    with whole(path) as temporary:
        temporary.write_text(as_json(encoding, indent=1) + "\n", encoding="utf-8")
    return path


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
            return drawn(run), f"{SAMPLES} drawn observations ({first_line(error)})"
        try:
            return torch.as_tensor(envs.reset(0)), f"{SAMPLES} observations"
        finally:
            envs.close()
    try:
        run.load_data(download=False)
    except DataError as error:
        return drawn(run), f"{SAMPLES} drawn samples ({first_line(error)})"
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
    if isinstance(spec, Image | Mask) or isinstance(spec, Env) and spec.has_pixels:
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


def compare(outputs: list[Tensor], wanted: list[Tensor], form: str) -> float:
    """Return the largest difference, relative for numbers above 1. Raises UserError if it exceeds TOLERANCE."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(outputs, wanted, strict=True)]
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
