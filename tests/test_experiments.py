"""Each experiment reaches the result in its header: `# Expected: test/acc >= 0.98`, or one setting against another."""

import re
from pathlib import Path

import pytest
from course import MOST, reaches, rows
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dlrun.config.pairing import CONFIGS

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
QUICK = sorted(
    {command.partition("=")[2] for row in rows() if (row.seconds or MOST + 1) <= MOST for command in row.commands[:1]}
    & set(EXPERIMENTS)
)  # those that are measured, and take no longer than five minutes as docs/course.md says


def expectation(name: str) -> str | None:
    """Such as `test/acc >= 0.98`."""
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    match = re.search(r"^# Expected: (test/\w+(?: of \S+)? (?:>=|<=|>|<) \S+)$", text, re.MULTILINE)
    return match and match[1]


def test_every_header_states_an_expected_result() -> None:
    """A line like `# Expected: test/acc >= 0.98`, or `test/acc of SETTING > SETTING`."""
    found = {name: expectation(name) for name in EXPERIMENTS}
    wrong = [f"{name}: no expected result" for name, text in found.items() if not text]
    wrong += [
        f"{name}: {text} ends in no number"
        for name, text in found.items()
        if text and " of " not in text and not re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text.split()[-1])
    ]
    assert len(EXPERIMENTS) > 50 and not wrong, "\n".join(["", *wrong])


def test_expected_settings_are_those_of_the_sweep():
    """As results.csv has them: `model.residual=True`, not `true`."""
    wrong, compared = [], 0
    for name in EXPERIMENTS:
        _, of, settings = expectation(name).partition(" of ")
        if of:
            params = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml").hydra.sweeper.params
            swept = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
            values = {f"{each.get_key_element()}={word}" for each in swept for word in each.sweep_string_iterator()}
            wrong += [f"{name}: {word}" for word in settings.split(" ") if "=" in word[1:-1] and word not in values]
            compared += 1
    assert compared > 10 and not wrong


def test_most_experiments_are_run():
    assert len(QUICK) > 45 and "himmelblau" in QUICK and "cifar10_resnet18" not in QUICK


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_every_quick_experiment_reaches_its_expected_result(name: str, tmp_path: Path) -> None:
    reaches([f"experiment={name}"], expectation(name), tmp_path)
