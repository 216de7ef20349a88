"""The formats of exported models, and what each needs. No torch here."""

from importlib.util import find_spec

from dlrun.config.extras import install
from dlrun.errors import UserError, nearest

FORMATS = {  # the packages that writing and checking it needs
    "pt2": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "safetensors": ("safetensors",),
    "state_dict": (),
}
SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors", "state_dict": ".pt"}


def check_format(name: str) -> None:
    """Raise UserError where there is no such format, or a package for it is missing."""
    if name not in FORMATS:
        raise UserError(
            f"--format {name}: there is no such format{nearest(name, FORMATS)}\n  expected {', '.join(FORMATS)}"
        )
    missing = [package for package in FORMATS[name] if find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs {' and '.join(missing)}, not installed here\n"
            f"  install all that exports need: {install('export')}"
        )
