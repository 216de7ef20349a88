"""The options of each config group, and which model learns from which data."""

from pathlib import Path

import yaml

from dlrun.config.signatures import accepts, signature
from dlrun.spec import Unlabelled

PACKAGE = Path(__file__).resolve().parent.parent
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent.parent / "configs"
LABELS = (
    "labels come from class folders or a CSV (data=image_folder),\n  data.spec.classes, or a table's data.spec.targets"
)


def takes_spec(node: dict) -> object:
    return signature(node["_target_"]).given.get("spec")


def learns(takes: object, data: dict) -> bool:
    """Whether a builder whose `spec` is annotated so learns from such data, as far as the data's section tells."""
    is_enough = has_labels(data) or accepts(takes, Unlabelled.__name__)
    return is_enough and accepts(takes, data["spec"]["_target_"].rpartition(".")[2])


def has_labels(data: dict) -> bool:
    """False where it is certain that there are none; a folder's layout may be one of classes."""
    spec, layout = data["spec"], data.get("layout", "flat")
    is_text = spec["_target_"].endswith(".Tokens")  # each of them has a class
    return "classes" not in spec or bool(spec["classes"] or spec.get("targets")) or layout != "flat" or is_text


def group_options(group: str) -> list[tuple[str, dict]]:
    """Every option of a group that names a target, with its own section, read as plain YAML."""
    found = []
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        node = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        found.append((path.stem, node.get(group, node)))
    return [(name, node) for name, node in found if "_target_" in node]
