"""A run as an object: its config, results, curves and network, from its folder. Each is read when it is asked for."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.api.host import as_guest
from dlrun.api.words import Words, as_words
from dlrun.config.saved import container, own_config, read_config, require_finished
from dlrun.errors import UserError, printable
from dlrun.output.console import number
from dlrun.output.folders import read_summary
from dlrun.output.rows import is_epoch, parse_row
from dlrun.paths import read_whole
from dlrun.runs.listing import status

if TYPE_CHECKING:
    import numpy as np
    import polars
    from torch import nn

    from dlrun.train.finished import FinishedRun

FACTS = ("data", "model", "task", "experiment", "seed", "device", "precision")


class Figure:
    """A plot or an animation in a run's folder. A notebook shows it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Figure({str(self.path)!r})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from base64 import b64encode

        kind = "image/gif" if self.path.suffix == ".gif" else "image/png"
        try:
            return {"text/plain": repr(self), kind: b64encode(read_whole(self.path)).decode()}
        except OSError:  # it is gone, or a link of a stranger's
            return {"text/plain": repr(self)}


class Figures(dict[str, Figure]):
    """Figures by name. A notebook shows all of them."""

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(_text(name))}</p>{embedded(figure)}" for name, figure in self.items())


class Run:
    """A run, finished or not.

    memory: the samples in memory that it was trained on, for `evaluate`; {} for a data set.
    """

    def __init__(self, folder: Path, memory: Mapping[str, Any] | None = None) -> None:
        self.folder, self.memory = Path(folder), dict(memory or {})
        self._rebuilt: tuple[dict, FinishedRun] | None = None  # with the summary of that time

    @property
    def config(self) -> dict[str, Any]:
        """The config, as plain dicts and lists."""
        return container(read_config(self.folder)[0], resolve=True)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; {} before the run has written it."""
        return read_summary(self.folder)

    @property
    def status(self) -> str:
        """finished, running, stopped, diverged, failed, or killed."""
        return status(self.folder, self.summary)

    @property
    def metrics(self) -> "polars.DataFrame":
        """A row per epoch: epoch, step, samples, train/..., val/..., lr, time/..."""
        return self._frame(steps=False)

    @property
    def step_metrics(self) -> "polars.DataFrame":
        """A row per trainer.log_every steps: step, epoch, samples, step/..."""
        return self._frame(steps=True)

    def _frame(self, steps: bool) -> "polars.DataFrame":
        import polars

        path, rows = self.folder / "metrics.jsonl", []
        try:
            for line in read_whole(path).splitlines():
                rows.append(parse_row(line))
        except (OSError, ValueError):  # none yet, or the last line is being written
            pass
        rows = [row for row in rows if is_epoch(row) != steps]
        return polars.DataFrame(rows, infer_schema_length=None, strict=False)

    @property
    def figures(self) -> Figures:
        """The plots and animations, by name; a notebook shows them."""
        paths = sorted((self.folder / "plots").glob("*.[pg][ni][gf]"))
        own = (path for path in paths if not path.is_symlink())
        return Figures({path.stem if path.suffix == ".png" else path.name: Figure(path) for path in own})

    @property
    def finished(self) -> "FinishedRun":
        """The rebuilt task with the weights that the run was tested with; rebuilt anew after it has been resumed."""
        summary = require_finished(self.folder)
        if self._rebuilt and self._rebuilt[0] == summary:
            return self._rebuilt[1]
        own_config(self.folder)  # its errors, before torch is imported
        with as_guest():
            from dlrun.output.failures import within_memory
            from dlrun.train.finished import FinishedRun

            with within_memory():
                self._rebuilt = summary, FinishedRun(self.folder)
        return self._rebuilt[1]

    @property
    def module(self) -> "nn.Module":
        """The trained network in evaluation mode. Inputs are encoded: (batch, *spec.shape), normalised.

        Raises UserError if it is called with another shape or type.
        """
        from dlrun.api.modules import guarded

        return guarded(self.finished)

    @property
    def full_module(self) -> "nn.Module":
        """The network with normalisation inside, in evaluation mode.

        It takes samples as they are stored (uint8 images, rows in their own units, word ids) and returns
        probabilities, real outputs or images in [0, 1]. Raises UserError for others.
        """
        from dlrun.api.modules import full

        return full(self.finished)

    def predict(self, x: Any = None, *, fit: bool = False, samples: int | None = None, episodes: int | None = None,
                seed: int = 0) -> "polars.DataFrame | np.ndarray":  # fmt: skip
        """Predict: a frame with a row per input, as dl-runs predict writes it; an array of images or masks.

        x: arrays (N, ...) or one sample, paths, PIL images, texts, rows, a frame or a list of them. fit: resize images
        of another size. samples: of a generative run. episodes: to be played. seed: of those two.
        """
        from dlrun.api.inputs import predict

        with as_guest():
            return predict(self.finished, x, fit, samples, episodes, seed)

    def outputs(self, x: Any, *, fit: bool = False) -> "np.ndarray":
        """Predict: probabilities (N, classes), real outputs (N, targets) or images (N, channels, height, width)."""
        from dlrun.api.inputs import outputs

        with as_guest():
            return outputs(self.finished, x, fit)

    def evaluate(self, split: str = "test", *words: Words, x: Any = None, y: Any = None) -> dict[str, float]:
        """Return the metrics of a split of the run's data, of other data ("data=fashion_mnist"), or of samples x, y."""
        from dlrun.api.scores import evaluate

        if x is None and y is not None:
            raise UserError("y without x\n  expected x=..., the samples of these targets")
        own_config(self.folder, evaluates=True)  # its errors, before anything is read
        with as_guest():
            return evaluate(self, split, as_words(words), x, y)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return Run, (self.folder.absolute(),)  # neither the network nor samples in memory

    def __repr__(self) -> str:
        best = self.summary.get("best")
        score = f", {_text(best.get('metric'))} {_shown(best.get('value'))}" if isinstance(best, dict) else ""
        return f"Run({str(self.folder)!r}, {_text(self.status)}{score})"

    def _repr_html_(self) -> str:
        summary = self.summary
        facts = {"folder": self.folder, "status": self.status, **{name: summary.get(name) for name in FACTS}}
        best, test = summary.get("best"), summary.get("test")
        if isinstance(best, dict):
            facts[f"best {_text(best.get('metric'))}"] = (
                f"{_shown(best.get('value'))} in epoch {_text(best.get('epoch'))}"
            )
        facts |= {
            name: _shown(value) for name, value in (test if isinstance(test, dict) else {}).items() if _is_number(value)
        }
        rows = "".join(
            f"<tr><td>{escape(_text(name))}</td><td>{escape(_text(value))}</td></tr>"
            for name, value in facts.items()
            if value is not None
        )
        goal = str(summary.get("goal", "")).removeprefix("val/")
        curves = [figure for name in (goal, "loss") if (figure := self.figures.get(name))]
        return f"<table>{rows}</table>" + "".join(map(embedded, curves[:1]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    return number(value) if isinstance(value, int | float) else "-"


def _text(value: object) -> str:
    """A plain value of a summary, which may be a stranger's, as text that can be printed; "-" for others."""
    if not isinstance(value, str | int | float | Path):
        return "-"
    return printable(str(value)).encode("utf-8", "backslashreplace").decode()


def embedded(figure: Figure) -> str:
    """A figure as HTML; nothing if its file cannot be read."""
    bundle = figure._repr_mimebundle_()
    images = [(kind, content) for kind, content in bundle.items() if kind != "text/plain"]
    return "".join(f'<img style="max-width: 640px" src="data:{kind};base64,{content}">' for kind, content in images)
