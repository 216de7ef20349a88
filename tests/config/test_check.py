"""Values are checked for type and range before anything is built; all wrong values are reported together."""

import re
from itertools import zip_longest

import pytest

VALUES = {
    "seed=-1": "an integer >= 0",
    "seed=abc": "an integer >= 0",
    "seed=null": "an integer >= 0",
    "seed=1.5": "an integer >= 0",
    "seed=true": "an integer >= 0",
    "seed=99999999999999999999": "an integer of at most 9,223,372,036,854,775,807",
    "output_dir=null": "a path (write a number as ./5)",
    "output_dir=5": "a path (write a number as ./5)",
    "run_dir=[a]": "a path or null",
    "trainer.epochs=-1": "an integer >= 1",
    "trainer.epochs=0": "an integer >= 1",
    "trainer.epochs=2.5": "an integer >= 1",
    "trainer.epochs=many": "an integer >= 1",
    "trainer.epochs=": "an integer >= 1",
    "trainer.epochs=true": "an integer >= 1",
    "trainer.device=gpu": "one of auto, cpu, cuda, mps",
    "trainer.precision=fp8": "one of auto, fp32, bf16, fp16",
    "trainer.ema=1": "a number in [0, 1)",
    "trainer.compile=maybe": "true or false",
    "trainer.max_time=-1": "a number > 0 or null",
    "data.batch_size=0": "an integer >= 1",
    "data.batch_size=99999999999999999999": "an integer of at most 1,000,000,000",
    "data.val_fraction=2": "a number in",
    "data.augment.crop=-1": "an integer >= 0",
    "data.mean=[a]": "a list, each a number",
    "task.unfreeze=[[head]]": "a list of pairs [text, number > 0]",
    "data.spec.shape=[1,8]": "a list of 3: an integer >= 1, an integer >= 1, an integer >= 1",
    "model.hidden=[0]": "a list, each an integer >= 1",
    "model.hidden=64": "a list, each an integer >= 1",
    "model.dropout=1.5": "a number in [0, 1)",
    "model.activation=swish": "one of relu,",
    "optimizer.lr=abc": "a number > 0",
    "optimizer.lr=-0.1": "a number > 0",
    "optimizer.lr=0": "a number > 0",
    "optimizer.lr=inf": "a finite number > 0",
    "optimizer.lr=nan": "a finite number > 0",
    "trainer.max_time=-inf": "a finite number > 0 or null",
    "optimizer.betas=[0.9]": "a list of 2",
    "task.label_smoothing=1.5": "a number in",
    "schedule.warmup_fraction=2": "a number in",
}


@pytest.mark.parametrize(
    "given",
    [["data=image_folder", "data.root={}"], ["data_dir=/{}"], ["init=../{}.pth"], ["--config-name", "{}"]],
)
def test_names_too_long_for_a_file_are_refused(refused, given):
    text = refused(*(argument.format("x" * 300) for argument in given))
    is_too_long = "xxx..." in text and ("255 bytes between two slashes" in text or "expected a path" in text)
    assert is_too_long or "there is no config 'xxx" in text, text  # Python 3.14 looks for such a file without an error


def rounds(lines):
    """The first line of each key, then the second of each, and so on: a command takes a key once."""
    by_key = {}
    for line in lines:
        by_key.setdefault(line.partition("=")[0], []).append(line)
    return [list(filter(None, together)) for together in zip_longest(*by_key.values())]


@pytest.mark.parametrize("lines", rounds(VALUES))
def test_values_of_the_wrong_type_or_range_are_refused(refused, lines):
    text = refused("schedule=cosine", *lines)
    assert text.startswith(f"{len(lines)} errors in the config:\n") or len(lines) == 1
    for line in lines:
        key, _, value = line.partition("=")
        shown = {"": "''", "[a]": "['a']", "[1,8]": "[1, 8]", "[[head]]": "[['head']]"}.get(value, value)
        assert re.search(f"^(  )?{re.escape(key)}={re.escape(shown)}: expected {re.escape(VALUES[line])}", text, re.M)


def test_all_errors_are_reported_at_once(refused):
    text = refused("trainer.epochs=-1", "data.batch_size=0", "model.dropout=1.5", "+optimizer.typo=1", "seed=-1")
    assert text.startswith("5 errors in the config:\n  ")
    for part in ("seed=-1", "data.batch_size=0", "model.dropout=1.5", "'typo'", "trainer.epochs=-1"):
        assert part in text
