"""docs/course.md, results.md and README: every command composes to a valid config; figures are those of the headers."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from runs import compose

from dlrun.runs.cli import COMMANDS as RUNS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
PRINTED = TEXT + "".join((ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
COMMANDS = sorted(set(re.findall(r"`dl-run (\w[^`]*|-m [^`]*)`", PRINTED)))


def test_there_is_a_table_for_each_chapter():
    assert [int(n) for n in re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE)] == list(range(1, 16))
    widths = {row.count("|") for row in TEXT.partition("## Beyond")[0].splitlines() if row.startswith("|")}
    assert widths == {6} and len(COMMANDS) > 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command):
    words = [word for word in shlex.split(command) if word != "-m"]
    parsed = OverridesParser.create().parse_overrides(words)
    first = []  # of each swept key the first value
    for word, override in zip(words, parsed, strict=True):
        key, value = override.get_key_element(), override.sweep_string_iterator
        first.append(f"{key}={next(iter(value()))}" if override.is_sweep_override() else word)
    compose(*first)


def test_every_command_after_a_run_exists():
    names = re.findall(r"`dl-runs (\w+)", TEXT)
    assert names and set(names) <= RUNS.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_listed_with_figures_of_its_header(path):
    rows = [row for row in TEXT.splitlines() if f"`dl-run experiment={path.stem}`" in row]
    header = path.read_text(encoding="utf-8").partition("Measured:")[2].partition("defaults:")[0]
    assert rows
    for row in rows:
        here = row.split("|")[-2] if row.count("|") == 6 else ""  # beyond the book: means of the header's seeds
        assert "not yet" not in header or "not measured" in here
        assert all(number in header for number in re.findall(r"\d+\.\d+", here)), here
