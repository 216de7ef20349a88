"""Files of one table, a split each: a column holds values of one kind in all of them, for predict and evaluate, too."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from finished_runs import trained
from runs import compose
from toys import CPU

from dlrun.config.build import build
from dlrun.data.table.encode import codes
from dlrun.data.table.table_file import TableFile
from dlrun.errors import DataError
from dlrun.runs.cli import main

SMALL = ["model=mlp", "model.hidden=[8]"]


def keys_of(folder: Path, **texts: str) -> list[str]:
    """The keys of a table whose files are these texts, with the target y."""
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return ["data=table", *(f"data.{name}={folder / name}.csv" for name in texts), "data.target=y"]


def loaded(folder: Path, *keys: str, **texts: str) -> TableFile:
    data = build(compose(*keys_of(folder, **texts), "model=mlp", *keys)[0]["data"])
    data.load(CPU)
    return data


def rows(values: str, targets: str = "0 1 2.5 3.5", name: str = "x") -> str:
    """Ten times these values of a column and the target."""
    pairs = zip(values.split(), targets.split(), strict=True)
    return f"a,{name},y\n" + 10 * "".join(
        f"{i % 3}.5,{value.replace('-', '')},{y}\n" for i, (value, y) in enumerate(pairs)
    )


@pytest.mark.parametrize(
    ("train", "test"),
    [("5 7 9 11", "5.5 7 9.25 11"), ("5.5 7 9.25 11", "5 7 9 11"), ("5 7 9 11", "- - - -")],
)
def test_whole_numbers_decimals_and_empty_columns_are_numbers(train, test, tmp_path):
    data = loaded(tmp_path, train=rows(train), test=rows(test))
    assert data.fitted()["columns"]["x"] == "number"


def test_a_target_of_whole_numbers_and_decimals_is_real(tmp_path):
    """As texts it would be one of many classes."""
    text = "a,y\n" + "".join(f"{i},{{}}\n" for i in range(40))
    whole, decimals = (text.format(*(i + part for i in range(40))) for part in (0, 0.25))
    for train, test in ((whole, decimals), (decimals, whole)):
        assert loaded(tmp_path, train=train, test=test).spec.targets == 1


def test_a_boolean_column_is_one_in_every_file(tmp_path):
    """Whatever is empty or written as 0 and 1 elsewhere; predict reads it alike."""
    train, val, test = rows("True False True False"), rows("- - - -"), rows("1 0 1 0")
    data = loaded(tmp_path, train=train, val=val, test=test)
    assert data.fitted()["columns"]["x"] == "boolean" and "unseen" not in data.header_lines
    _, x, notes = data.read(tmp_path / "test.csv")
    assert torch.equal(x, torch.cat([x for x, _ in data.batches("test")])) and not notes


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("5 7 9 11", "test.csv, line 3: x is 'b'\n  expected a number, as in data.train: correct it, write"),
        (
            "True False True False",
            "test.csv, line 2: x is 'a7'\n  expected true or false, as in data.train: correct it",
        ),
    ],
)
def test_words_in_a_column_of_numbers_or_truths_are_refused(train, message, tmp_path):
    other = rows("7 b a a") if "line 3" in message else rows("a7 b a a")
    with pytest.raises(DataError, match=message):
        loaded(tmp_path, train=rows(train), test=other)
    data = loaded(tmp_path, "+data.types.x=category", train=rows(train), test=other)
    assert data.fitted()["columns"]["x"] == "category"
    assert "x" not in loaded(tmp_path, "data.drop=[x]", train=rows(train), test=other).fitted()["columns"]


def test_what_is_text_in_train_is_text_in_all_files(tmp_path):
    """A file where it happens to be numbers keeps them as they are written."""
    data = loaded(tmp_path, train=rows("007 A1 007 B2"), test=rows("007 007 007 007"))
    assert data.fitted()["categories"][0]["levels"] == ["A1", "B2", "007"] and "unseen" not in data.header_lines


def test_a_column_of_lists_in_one_file_is_refused_unless_it_is_dropped(tmp_path):
    lists = pl.DataFrame(
        {"a": [i + 0.5 for i in range(40)], "x": [[i] for i in range(40)], "y": [i % 2 for i in range(40)]}
    )
    lists.write_parquet(tmp_path / "l.parquet")
    keys = [f"data.test={tmp_path}/l.parquet"]
    with pytest.raises(DataError, match="data.test: the column x is of type List, and elsewhere of type Enum"):
        loaded(tmp_path, *keys, train=rows("a b c d", "0 1 0 1"))
    assert list(loaded(tmp_path, *keys, "data.drop=[x]", train=rows("a b c d", "0 1 0 1")).fitted()["columns"]) == ["a"]


def test_values_are_levels_however_numbers_and_truths_are_written():
    column = pl.Series(["1.0", "02", "2", "x", None, "1_0", "10", "nan", "1e1"])
    assert codes(column, ["1", "2", "10"]).tolist() == [1, 2, 2, 0, 0, 0, 3, 0, 3]
    assert codes(pl.Series(["True", "false", None, "yes"]), ["false", "true"]).tolist() == [2, 1, 0, 0]


def test_texts_are_levels_as_they_are_written():
    assert codes(pl.Series(["1", "01", "1.0", "0.0", None]), ["1", "01", "0", None]).tolist() == [1, 2, 0, 0, 4]
    assert codes(pl.Series(["True", "1.0", "A"]), ["1", "a", "true"]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("labels", ["True False", "0.0 1.0", "1.0 3.0", "1 3 -", "yes no"])
def test_a_run_is_evaluated_on_its_own_training_file(labels, tmp_path, monkeypatch, capsys):
    """Classes are read as in training."""
    words = labels.replace("-", "").split(" ")
    text = "a,b,y\n" + "".join(f"{i % 7}.5,{i % 5},{words[i % len(words)]}\n" for i in range(60))
    keys = keys_of(tmp_path, file=text)
    run = trained(tmp_path / "run", [*keys, *SMALL])
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["dl-runs", "evaluate", str(run), "--on", str(tmp_path / "file.csv"), "--json"])
    main()
    assert json.loads(capsys.readouterr().out)["metrics"]["acc"] > 0
