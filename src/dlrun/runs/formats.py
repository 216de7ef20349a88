"""The formats of exported models and the packages that they need. No torch here."""

from importlib.util import find_spec

from dlrun.config.extras import install
from dlrun.errors import UserError, nearest

FORMATS = {  # format: packages needed to write and check it
    "pt2": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "safetensors": ("safetensors",),
    "state_dict": (),
}
GRAPHS = ("pt2", "onnx")  # formats that hold the computation, not only weights
SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors", "state_dict": ".pt"}


def check_format(name: str) -> None:
    """Raise UserError if the format is unknown or one of its packages is missing."""
    if name not in FORMATS:
        raise UserError(
            f"--format {name}: no such format{nearest(name, FORMATS)}\n  expected one of: {', '.join(FORMATS)}"
        )
    missing = [package for package in FORMATS[name] if find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs {' and '.join(missing)}, not installed here\n"
            f"  install the packages for exports: {install('export')}"
        )
