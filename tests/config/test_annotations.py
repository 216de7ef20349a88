"""The types of config keys are known when a config is checked, so that a wrong value is refused before data is read."""

import pytest
from runs import compose

from dlrun.config.pairing import CONFIGS
from dlrun.config.signatures import signature
from dlrun.errors import UserError

GROUPS = ("data", "model", "task", "optimizer", "schedule", "trainer")


def targets() -> set[str]:
    """The paths of all functions and classes of this package that the shipped configs name."""
    lines = [
        line for group in GROUPS for path in (CONFIGS / group).glob("*.yaml") for line in path.read_text().splitlines()
    ]
    named = {line.split("_target_:")[1].split("#")[0].strip() for line in lines if "_target_:" in line}
    return {name for name in named if name.startswith("dlrun.")}


def test_each_key_of_a_shipped_config_has_a_type_that_is_checked():
    found = {name: [key for key, kind in signature(name).keys.items() if kind is None] for name in sorted(targets())}
    assert len(found) > 60 and not {name: keys for name, keys in found.items() if keys}


@pytest.mark.parametrize("model", ["dqn", "ppo"])
@pytest.mark.parametrize("value", ["zeros", "fancy", "3"])
def test_a_wrong_initialisation_of_a_policy_is_refused(model, value):
    with pytest.raises(
        UserError, match=rf"model.init={value}.*expected one of torch, keras, kaiming, xavier, orthogonal"
    ):
        compose(f"model={model}", f"model.init={value}")
