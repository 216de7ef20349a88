"""The options of each config group, and which models can learn from which data."""

from pathlib import Path

import yaml

from dlrun.config.signatures import accepts, signature

PACKAGE = Path(__file__).resolve().parent.parent
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent.parent / "configs"
UNLABELLED = "Unlabelled"  # in the annotation of a builder that needs no labels (spec.py)
LABELS = (
    "labels come from class folders or a CSV (data=image_folder),\n  data.spec.classes, or a table's data.spec.targets"
)


def takes_spec(node: dict) -> object:
    """Return the annotation of a builder's `spec` parameter, or None if it has none."""
    return signature(node["_target_"]).positional.get("spec")


def learns(takes: object, data: dict) -> bool:
    """Whether a builder whose `spec` has this annotation can learn from data with this config section."""
    is_enough = has_labels(data) or accepts(takes, UNLABELLED)
    return is_enough and accepts(takes, data["spec"]["_target_"].rpartition(".")[2])


def has_labels(data: dict) -> bool:
    """Whether the data may have labels. False only if it certainly has none: class folders may give a folder labels."""
    spec, layout = data["spec"], data.get("layout", "flat")
    is_text = spec["_target_"].endswith(".Tokens")  # every text has a class
    return "classes" not in spec or bool(spec["classes"] or spec.get("targets")) or layout != "flat" or is_text


def group_options(group: str) -> list[tuple[str, dict]]:
    """List the options of a group that have a `_target_`, each with its section, read as plain YAML."""
    pairs = []
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        node = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        pairs.append((path.stem, node.get(group, node)))
    return [(name, node) for name, node in pairs if "_target_" in node]
