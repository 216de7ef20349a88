"""Each experiment reaches the result in its header: `# Expected: test/acc >= 0.98`, or one setting against another."""

import csv
import operator
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from dlrun.config.pairing import CONFIGS
from dlrun.output.folders import read_summary

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def expectation(name: str) -> re.Match | None:
    """Groups: metric, setting or None, comparison, number or other setting."""
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    return re.search(r"^# Expected: (test/\w+)(?: of (\S+))? (>=|<=|>|<) (\S+)", text, re.MULTILINE)


def test_every_header_states_an_expected_result() -> None:
    """A line like `# Expected: test/acc >= 0.98`, or `test/acc of SETTING > SETTING`."""
    found = {name: expectation(name) for name in EXPERIMENTS}
    wrong = [f"{name}: no expected result" for name, match in found.items() if not match]
    wrong += [
        f"{name}: {match[4]} is no number"
        for name, match in found.items()
        if match and not match[2] and not re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", match[4])
    ]
    assert len(EXPERIMENTS) > 50 and not wrong, "\n".join(["", *wrong])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_reaches_its_expected_result(name: str, tmp_path: Path) -> None:
    metric, setting, sign, right = expectation(name).groups()
    where = f"output_dir={tmp_path}" if setting else f"run_dir={tmp_path / 'run'}"
    command = [sys.executable, "-m", "dlrun", f"experiment={name}", where]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    absent = ("was not downloaded", "data.root=", "data.source.folder")
    if done.returncode == 2 and any(words in done.stderr for words in absent):
        pytest.skip("its data is not at hand")
    if done.returncode and ("init=outputs/" in done.stderr or "dl-run experiment=imdb_glove_vectors" in done.stderr):
        pytest.skip("the run that it starts from is not at hand")
    assert done.returncode == 0, done.stderr
    if setting:
        (table,) = tmp_path.glob("*/*/results.csv")
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        left, other = (mean(float(r[metric]) for r in rows if s in r["overrides"].split()) for s in (setting, right))
        assert COMPARE[sign](left, other), (left, other)
    else:
        value = read_summary(tmp_path / "run")["test"][metric]
        assert COMPARE[sign](value, float(right)), value
