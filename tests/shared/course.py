"""The rows of docs/course.md, and runs of their commands that check an expected result."""

import csv
import operator
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

from dlrun.output.folders import read_summary

PAGE = Path(__file__).parents[2] / "docs" / "course.md"
UNITS = {"s": 1, "min": 60, "h": 3600}
MOST = 300  # seconds: the slow tests run what the page says takes no longer
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
ABSENT = (
    "was not downloaded",
    "data.root=",
    "data.source.folder",
    "init=outputs/",
    "imdb_glove_vectors makes",
)  # of errors


class Row(NamedTuple):
    """A row with a command: the words after `dl-run`, what the page says of the result, and the time it states."""

    commands: list[str]
    here: str
    seconds: float | None


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = line.split("|")[1:-1]
        commands = re.findall(
            r"`dl-run (\w+=[^`]*|-m [^`]*)`", cells[-3] if len(cells) == 5 else cells[1] if len(cells) == 3 else ""
        )
        times = [
            float(number) * UNITS[unit]
            for number, unit in re.findall(r"([\d.]+) (s|min|h)\b", cells[-1] if cells else "")
        ]
        if commands:
            found.append(Row(commands, cells[-1].strip(), max(times, default=None)))
    return found


def reaches(command: list[str], expected: str, folder: Path) -> None:
    """Run the command and check `test/acc >= 0.98`, or of a sweep `test/acc of SETTING > SETTING` (or a number)."""
    metric, setting, sign, right = re.fullmatch(r"(test/\w+)(?: of (\S+))? (>=|<=|>|<) (\S+)", expected).groups()
    where = f"output_dir={folder}" if setting else f"run_dir={folder / 'run'}"
    words = [sys.executable, "-m", "dlrun", *command, where]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and any(words in done.stderr for words in ABSENT):  # 1: only some jobs of a sweep lack it
        pytest.skip("its data, or the run that it starts from, is not at hand")
    assert done.returncode == 0, done.stderr
    if setting:
        (table,) = folder.glob("*/*/results.csv")
        with open(table, newline="", encoding="utf-8") as file:
            jobs = list(csv.DictReader(file))
        means = {}  # of the metric, by setting
        for words in (setting, right) if "=" in right else (setting,):
            means[words] = mean(float(job[metric]) for job in jobs if words in job["overrides"].split())
        assert COMPARE[sign](means[setting], means[right] if "=" in right else float(right)), means
    else:
        value = read_summary(folder / "run")["test"][metric]
        assert COMPARE[sign](value, float(right)), value
