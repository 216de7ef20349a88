"""Keys and values of Python become overrides of the command line."""

from pathlib import Path

import numpy as np
import pytest

import dlrun
from dlrun.api.words import as_words


def test_values_become_overrides_of_the_command_line():
    given = {"model": "lenet", "trainer": {"epochs": np.int64(3), "compile": True}, "init": None}
    assert as_words(["a=1", given]) == ["a=1", "model=lenet", "trainer.epochs=3", "trainer.compile=true", "init=null"]
    assert as_words([{"model.hidden": (64, 32), "data.file": Path("/a b/c.csv"), "seed": "5", "x": "true"}]) == [
        "model.hidden=[64,32]", 'data.file="/a b/c.csv"', 'seed="5"', 'x="true"',
    ]  # fmt: skip
    assert as_words([{"optimizer": {"groups": {"head": {"lr": 0.1}}}}]) == ["optimizer.groups={head:{lr:0.1}}"]
    for wrong in (3, {"a": object()}, {1: 2}):
        with pytest.raises(dlrun.UserError, match="expected"):
            as_words([wrong])
