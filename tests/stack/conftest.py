"""The config of a small run, for all tests of stacks."""

import pytest
import runs
from runs import SMALL, compose


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Composes a small run with these overrides."""
    data_dir = runs.write_mnist(tmp_path_factory.mktemp("data"))
    return lambda *overrides: compose(f"data_dir={data_dir}", *SMALL, "trainer.epochs=4", *overrides)
