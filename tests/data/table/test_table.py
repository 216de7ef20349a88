"""Tables: what is read, which kinds the columns are, how they are encoded and split, and what is refused."""

import csv
import gzip
import json
import os
import re
import shutil
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
import torch
from finished_runs import command, trained, untrained
from omegaconf import OmegaConf
from runs import CONFIGS, compose, rows, train
from toys import CPU, make_task

from dlrun.config.build import build
from dlrun.config.older import update_config
from dlrun.data.splits import split_groups, split_random, split_times
from dlrun.data.table import blocks
from dlrun.data.table.columns import as_dates, kind_of
from dlrun.data.table.dates import ambiguity, date_format, parsed
from dlrun.data.table.encode import encode, learn_column, stacked
from dlrun.data.table.read import Format, read_table
from dlrun.data.table.table_file import TableFile
from dlrun.data.table.targets import described
from dlrun.errors import DataError, UserError
from dlrun.models.mlp import mlp
from dlrun.runs.importance import columns_of
from dlrun.spec import Columns, Table

SMALL = ["model=mlp", "model.hidden=[8]"]
LEARNS = ["trainer.epochs=12", "optimizer.lr=0.02"]
DENSE = dict(activation="relu", dropout=0.0, norm="none", init="keras")


def people(count: int = 120) -> list[dict]:
    """Rows with a column of each kind and gaps: sex decides `bought`, age and the year decide `spent`."""
    random = np.random.RandomState(0)
    found = []
    for i in range(count):
        sex, age, year = random.choice(["m", "f"]), random.randint(18, 80), 2000 + random.randint(20)
        found.append(
            {
                "id": i + 1, "name": f"person {i} of town", "sex": sex, "age": "" if i % 10 == 3 else age,
                "member": random.choice(["true", "false"]), "born": f"{year}-{1 + i % 12:02d}-{1 + i % 28:02d}",
                "town": "" if i % 7 == 0 else random.choice(["Aachen", "Bonn", "Köln"]), "always": 5,
                "bought": "yes" if sex == "f" else "no", "spent": round(1000 + 20 * age + 3 * (year - 2000), 2),
            }
        )  # fmt: skip
    return found


def write(path: Path, found: list[dict], separator: str = ",", encoding: str = "utf-8") -> Path:
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(found[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(found)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "people.csv", people())


def make(path: Path | None, *overrides: str, target: str = "bought") -> TableFile:
    files = [f"data.file={path}"] if path else []
    config, _ = compose("data=table", "model=mlp", *files, f"data.target={target}", *overrides)
    return build(config["data"])


def loaded(path: Path | None, *overrides: str, target: str = "bought") -> TableFile:
    data = make(path, *overrides, target=target)
    data.load(CPU)
    return data


def fit(frame: pl.DataFrame, kinds: dict[str, str], train: np.ndarray, by_quantiles: bool) -> dict:
    """The encoding that is learned from these rows; it encodes them as it did when it was learned."""
    found = [learn_column(frame[name], kind, train, by_quantiles) for name, kind in kinds.items()]
    numbers, categories = ([entry for column in found for entry in column[i]] for i in (0, 1))
    encoding = {"columns": kinds, "numbers": numbers, "categories": categories}
    assert np.array_equal(encode(frame, encoding), stacked(found))
    return encoding


def split_of(data: TableFile, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = zip(*data.batches(split), strict=True)
    return torch.cat(x), torch.cat(y)


def test_kinds_of_columns_are_detected(table):
    data = loaded(table)
    assert data.fitted()["columns"] == {
        "sex": "category", "age": "number", "member": "boolean", "born": "%Y-%m-%d", "town": "category",
        "spent": "number",
    }  # fmt: skip
    spec = data.spec
    assert (spec.classes, spec.labels, spec.targets) == (2, ("no", "yes"), 0)
    assert spec.names[-2:] == ("sex", "town") and spec.levels == (2, 4)  # no town is a level, too
    assert "age missing" in spec.names and "born weekday" in spec.names and "born hour" not in spec.names
    for column, reason in {"id": "an id", "name": "text or an id", "always": "always 5"}.items():
        assert f"{column} ({reason}" in data.header_lines["left out"]
    assert data.header_lines["learns"] == "bought: classification, 2 classes: no, yes"


def test_kinds_of_columns_can_be_set(table):
    chosen = "++data.types={id: number, born: text, age: category, name: category}"
    data = loaded(table, chosen)
    kinds = data.fitted()["columns"]
    assert "born" not in kinds and (kinds["id"], kinds["age"], kinds["name"]) == ("number", "category", "category")


DATES = {  # how 2024-03-04 14:05 is written: the format, and whether day and month may be the other way round
    "2024-03-04T14:05:00Z": ("%Y-%m-%dT%H:%M:%SZ", False),
    "2024-03-04T14:05:00.000Z": ("%Y-%m-%dT%H:%M:%S%.fZ", False),
    "2024-03-04 16:05:00+02:00": ("%Y-%m-%d %H:%M:%S%z", False),
    "2024-03-04 14:05:00,000": ("%Y-%m-%d %H:%M:%S,%3f", False),
    "04-03-2024": ("%d-%m-%Y", True),
    "03/04/2024 02:05 PM": ("%m/%d/%Y %I:%M %p", True),
    "03/04/24": ("%m/%d/%y", True),
    "04.03.24": ("%d.%m.%y", False),
    "04-Mar-2024": ("%d-%b-%Y", False),
    "March 4, 2024": ("%B %d, %Y", False),
    "04.03.2024, 14:05": ("%d.%m.%Y, %H:%M", False),
}


@pytest.mark.parametrize("text", DATES)
def test_usual_dates_are_read_and_their_format_is_shown(text, tmp_path):
    form, is_ambiguous = DATES[text]
    others = [text.replace("24", "25"), text]
    (tmp_path / "x.csv").write_text("d;b\n" + "".join(f'"{others[i % 2]}";{i % 2}\n' for i in range(40)))
    data = loaded(tmp_path / "x.csv", target="b")
    assert data.fitted()["columns"] == {"d": form} and data.header_lines["columns"] == f"1 date: d ({form})"
    assert ("fits every value, too" in data.header_lines.get("dates", "")) == is_ambiguous
    chosen = loaded(tmp_path / "x.csv", f"++data.types={{d: '{form}'}}", target="b")
    assert "dates" not in chosen.header_lines  # the user said what is meant
    wanted = datetime(2024, 3, 4, *((14, 5) if ":" in text else ()))
    assert parsed(pl.Series([text]), form).to_list() == [wanted]


def test_a_later_day_decides_between_day_and_month():
    texts = pl.Series("d", [f"{i % 12 + 1:02}/03/2024" for i in range(200)] + ["31/03/2024"])
    assert date_format(texts) == "%d/%m/%Y" and not ambiguity(parsed(texts, "%d/%m/%Y"), "%d/%m/%Y")


def test_a_month_is_its_first_day():
    texts = pl.Series("d", [f"19{49 + i // 12}-{1 + i % 12:02}" for i in range(60)])
    assert date_format(texts) == "%Y-%m" and parsed(texts, "%Y-%m")[13] == datetime(1950, 2, 1)
    assert parsed(pl.Series(["1949-13", "1949-01-01"]), "%Y-%m").null_count() == 2


def test_a_year_of_two_digits_is_no_year_of_four():
    """A table of years of four digits with one of two: not the year 24, but a mistake."""
    column = pl.Series("d", ["01.02.2024"] * 30 + ["01.02.24"])
    with pytest.raises(UserError, match="row 30: d is '01.02.24'\n  expected a date, written as %d.%m.%Y"):
        kind_of(column, None, lambda row: f"row {row}")
    zone = pl.Series("d", [datetime(2024, 1, 1)]).dt.replace_time_zone("Europe/Berlin")
    assert as_dates(zone, "date", str).to_list() == [datetime(2023, 12, 31, 23)]


def test_statistics_are_of_train_only(table):
    data = loaded(table, target="spent")
    x, y = split_of(data, "train")
    numbers = [i for i, n in enumerate(data.fitted()["numbers"]) if n["part"] != "missing"]
    assert torch.allclose(x[:, numbers].mean(0), torch.zeros(len(numbers)), atol=1e-5)
    assert torch.allclose(x[:, numbers].std(0), torch.ones(len(numbers)), atol=1e-4)
    target = data.fitted()["targets"][0]
    assert (y.mean().item(), y.std().item()) == pytest.approx((target["mean"], target["std"]), rel=1e-5)


def test_missing_numbers_are_the_median_with_an_indicator():
    frame = pl.DataFrame({"a": [1.0, None, 3.0, 100.0, 7.0]})
    encoding = fit(frame, {"a": "number"}, np.arange(5), False)
    x = encode(frame, encoding)
    filled = np.array([1, 5, 3, 100, 7])
    assert x[:, 0] == pytest.approx((filled - filled.mean()) / filled.std(ddof=1))
    assert x[:, 1].tolist() == [0, 1, 0, 0, 0]
    assert encode(pl.DataFrame({"a": ["", "3"]}).select(pl.col("a").replace("", None)), encoding)[:, 1].tolist() == [
        1,
        0,
    ]


def test_quantiles_make_any_distribution_normal():
    values = np.exp(3 * np.random.RandomState(0).normal(size=2000))
    frame = pl.DataFrame({"a": values})
    x = encode(frame, fit(frame, {"a": "number"}, np.arange(2000), True))[:, 0]
    ranks = values.argsort().argsort()
    wanted = [NormalDist().inv_cdf((rank + 0.5) / 2000) for rank in ranks]
    assert np.abs(x - wanted)[np.abs(wanted) < 2.5].max() < 0.05
    ends = encode(pl.DataFrame({"a": [-1e30, 1e30]}), fit(frame, {"a": "number"}, np.arange(2000), True))[:, 0]
    assert ends.tolist() == pytest.approx([-5.2, 5.2], abs=0.01)


def test_levels_not_in_train_are_code_0():
    frame = pl.DataFrame({"c": ["b", "a", None, "b", "new", "10", "9"]})
    encoding = fit(frame, {"c": "category"}, np.array([0, 1, 2, 3, 5, 6]), False)
    assert encoding["categories"] == [{"column": "c", "levels": ["a", "b", "9", "10", None]}]
    assert encode(frame, encoding)[:, 0].tolist() == [2, 1, 5, 2, 0, 4, 3]
    without = fit(frame, {"c": "category"}, np.array([0, 1]), False)
    assert encode(frame, without)[:4, 0].tolist() == [2, 1, 0, 2]


@pytest.mark.parametrize("form", ["semicolon", "tab", "bar", "gz", "latin", "utf-16", "bom", "parquet"])
def test_every_format_gives_the_same_rows(form, table, tmp_path):
    keys, path, found = [], tmp_path / "other.csv", people()
    if form in ("semicolon", "tab", "bar"):
        write(path, found, {"semicolon": ";", "tab": "\t", "bar": "|"}[form])
    elif form == "gz":
        path = tmp_path / "other.csv.gz"
        path.write_bytes(gzip.compress(table.read_bytes()))
    elif form == "parquet":
        path = tmp_path / "other.parquet"
        pl.read_csv(table, try_parse_dates=True).write_parquet(path)
    else:
        write(path, found, encoding={"latin": "latin-1", "utf-16": "utf-16", "bom": "utf-8-sig"}[form])
        keys = ["data.encoding=latin-1"] if form == "latin" else []
    one, other = loaded(table, target="spent"), loaded(path, *keys, target="spent")
    assert one.spec == other.spec
    assert all(a.equal(b) for a, b in zip(split_of(one, "test"), split_of(other, "test"), strict=True))


@pytest.mark.parametrize("word, sign", [("semicolon", ";"), ("\\t", "\t"), ("space", " "), ('":"', ":")])
def test_a_separator_may_be_a_word(word, sign, tmp_path):
    """Values that hold more of the other signs than there are separators."""
    lines = "".join(f"{i % 3},{i % 3},1|{i % 3}{sign}{i % 2}\n" for i in range(40))
    (tmp_path / "x.csv").write_text(f"a,c,d|e{sign}b\n" + lines)
    assert list(loaded(tmp_path / "x.csv", f"data.separator={word}", target="b").fitted()["columns"]) == ["a,c,d|e"]


def test_a_separator_of_several_characters_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected comma, semicolon, tab, bar, space or one character in quotes"):
        make(tmp_path / "x.csv", "data.separator='\",\"'")


@pytest.mark.parametrize("shares", [(0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)])
@pytest.mark.parametrize("folds", [0, 3])
def test_splits_divide_the_rows(shares, folds):
    labels = np.arange(100) % 4 % 3  # twice as many of class 0
    groups, times = np.arange(100) // 7, np.arange(100)[::-1] // 3
    for splits in (
        split_random(100, shares, folds, 0),
        split_random(100, shares, folds, 0, labels),
        split_groups(groups, shares, folds, 0),
        split_times(times, shares),
    ):
        assert sorted(np.concatenate(list(splits.values()))) == list(range(100))
        assert all(len(rows) for rows in splits.values())
    stratified = split_random(100, (0.6, 0.2, 0.2), 0, 0, labels)
    assert np.bincount(labels[stratified["test"]]).tolist() == [10, 5, 5]
    by_group = split_groups(groups, shares, folds, 0)
    assert len(np.unique(groups)) == sum(len(np.unique(groups[rows])) for rows in by_group.values())
    by_time = split_times(times, shares)
    assert times[by_time["train"]].max() < times[by_time["val"]].min()
    assert times[by_time["val"]].max() < times[by_time["test"]].min()


def test_folds_hold_out_every_row_once():
    held = [split_random(50, (0.6, 0.2, 0.2), 4, fold) for fold in range(4)]
    rest = np.setdiff1d(np.arange(50), held[0]["test"])
    assert sorted(np.concatenate([splits["val"] for splits in held])) == rest.tolist()


def test_given_splits_stay_as_they_are(tmp_path):
    found = people()
    train_file, test_file = write(tmp_path / "train.csv", found[:90]), write(tmp_path / "test.csv", found[90:])
    data = loaded(None, f"data.train={train_file}", f"data.test={test_file}", target="spent")
    assert (data.size("train"), data.size("val"), data.size("test")) == (67, 23, 30)
    assert split_of(data, "test")[1].flatten().tolist() == pytest.approx([row["spent"] for row in found[90:]])


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["file", "train"], "data.file and data.train do not go together"),
        (["file", "val"], "data.file and data.val do not go together"),
        (["file", "test"], "data.file and data.test do not go together"),
        (["file", "source"], "data.file and data.source do not go together"),
        (["source", "test"], "data.source and data.test do not go together"),
        (["val"], "data.val without data.train"),
        (["val", "test"], "data.val and data.test without data.train"),
        ([], "no file of rows is given"),
    ],
)
def test_files_of_which_one_would_not_be_read_are_refused(words, wrong, table, tmp_path):
    """The error names the keys that were given."""
    frames = "data.source={_target_: dlrun.data.readers.frames.memory}"
    others = [frames if key == "source" else f"data.{key}={tmp_path}/none.csv" for key in words if key != "file"]
    with pytest.raises(UserError) as refused:
        make(table if "file" in words else None, *others)
    first, second = str(refused.value).splitlines()
    assert first == wrong
    assert second.startswith("  expected one file of all rows, data.file=table.csv, or one per split: data.train=")


def test_a_file_of_val_beside_folds_is_refused(table):
    files = [f"data.train={table}", f"data.test={table}"]
    assert loaded(None, *files, "data.folds=3").size("val") == 40
    with pytest.raises(UserError, match=f"data.val={table} data.folds=3: .*\n  expected data.folds=0; or no data.val"):
        loaded(None, *files, f"data.val={table}", "data.folds=3")


def test_a_run_of_before_that_did_not_read_a_file_has_none(table):
    config = OmegaConf.create({"data": compose("data=table", f"data.file={table}", "data.test=none.csv")[0]["data"]})
    update_config(config)
    assert config["data"]["test"] is None and config["data"]["file"] == str(table)


def test_a_file_that_a_run_did_not_read_is_no_new_place_of_its_data(table, tmp_path, dl_run):
    folder = trained(tmp_path / "run", ["data=table", f"data.file={table}", "data.target=bought", *SMALL])
    before = (folder / ".hydra" / "config.yaml").read_bytes()
    code, _, err = dl_run(f"resume={folder}", f"data.test={table}")
    assert code == 2 and f"data.test={table}: the run read no data.test" in err
    assert "expected data.file or data_dir" in err and (folder / ".hydra" / "config.yaml").read_bytes() == before
    shutil.copy(table, tmp_path / "moved.csv")
    assert dl_run(f"resume={folder}", f"data.file={tmp_path}/moved.csv")[0] == 0


def test_rows_without_a_target_are_left_out(tmp_path):
    found = people()
    found[4]["bought"] = found[7]["bought"] = ""
    data = loaded(write(tmp_path / "a.csv", found))
    assert data.size("all") == 118 and data.header_lines["rows left out"] == "2 rows without a value of bought"


@pytest.mark.parametrize(
    ("target", "keys", "wanted"),
    [
        ("age", ["data.missing=['']"], (None, 1)),
        ("always2", [], (3, 0)),
        ("always2", ["data.learn=regression"], (None, 1)),
        ("spent", [], (None, 1)),
        ("[spent,age]", [], (None, 2)),
        ("member", [], (2, 0)),
    ],
)
def test_the_kind_of_target_is_detected(target, keys, wanted, tmp_path):
    path = write(tmp_path / "a.csv", [row | {"always2": row["id"] % 3} for row in people()])
    spec = make(path, *keys, target=target).spec
    assert (spec.classes, spec.targets) == wanted


def test_weights_count_as_copies():
    """A row of weight 3 beside one of weight 1 gives the gradient of three copies beside one."""
    torch.manual_seed(0)
    for spec, y in (
        (Columns(2, targets=1, target_means=(5.0,), target_stds=(3.0,)), torch.tensor([[1.0], [7.0]])),
        (Columns(2, classes=3), torch.tensor([0, 2])),
        (Columns(2, classes=2), torch.tensor([0, 1])),
    ):
        net, x = mlp(spec, hidden=[4], **DENSE), torch.randn(2, 2)
        task = make_task(net, spec)
        weighed, _ = task._learn(x, y, torch.tensor([1.5, 0.5]))
        copied, _ = task._learn(x[[0, 0, 0, 1]], y[[0, 0, 0, 1]])
        assert weighed.item() == pytest.approx(copied.item(), rel=1e-6)


def test_weights_come_with_train_batches_only(tmp_path):
    path = write(tmp_path / "a.csv", [row | {"w": 1 + row["id"] % 2} for row in people()])
    data = loaded(path, "data.weights=w")
    weights = torch.cat([batch[2] for batch in data.batches("train")])
    assert weights.mean().item() == pytest.approx(1) and len(weights.unique()) == 2
    assert "w" not in data.fitted()["columns"]


def test_targets_are_learned_standardised_and_measured_in_their_unit():
    plain, scaled = Table(3, targets=1), Columns(3, targets=1, target_means=(50_000.0,), target_stds=(10_000.0,))
    torch.manual_seed(0)
    net = mlp(scaled, hidden=[4], **DENSE)
    x, y = torch.randn(8, 3), 50_000 + 10_000 * torch.randn(8, 1)
    task, raw = make_task(net, scaled), make_task(net, plain)
    loss, metrics = task._learn(x, y)
    assert loss.item() == pytest.approx(raw._learn(x, (y - 50_000) / 10_000)[0].item(), rel=1e-5)
    assert task.predict(x).equal(raw.predict(x) * 10_000 + 50_000)
    assert metrics["mae"].mean().item() == pytest.approx((task.predict(x) - y).abs().mean().item())


@pytest.mark.parametrize("categories", ["embed", "one_hot"])
def test_networks_accept_categories(categories):
    spec = Columns(2, levels=(3, 40), classes=4, categories=categories)
    net = mlp(spec, hidden=[8], **DENSE)
    x = torch.tensor([[0.5, 1.0, 3.0, 0.0], [0.5, 1.0, 3.0, 40.0], [0.5, 1.0, 0.0, 0.0]])
    first = net[0](x)
    assert first.shape == (3, net[1].in_features)
    assert not first[2, 2:].any() and first[0, :2].tolist() == [0.5, 1.0]  # levels that training has not seen are zeros
    if categories == "one_hot":
        assert first[1, 2:].nonzero().flatten().tolist() == [2, 42]


@pytest.fixture(scope="module")
def run(table, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "a"
    return trained(folder, ["data=table", f"data.file={table}", "data.target=bought", *SMALL, *LEARNS])


def test_run_predicts_raw_rows_and_its_own_predictions(run, table, tmp_path, monkeypatch, capsys):
    """Without the training file; from the file that it wrote, it predicts the same."""
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    new = write(tmp_path / "new.csv", people()[:30])
    assert command(monkeypatch, capsys, "predict", run, new, "--out", one)[::2] == (0, "")
    assert command(monkeypatch, capsys, "predict", run, one, "--out", two)[::2] == (0, "")
    assert one.read_text(encoding="utf-8") == two.read_text(encoding="utf-8")
    found = pl.read_csv(one, infer_schema=False).to_dicts()
    assert len(found) == 30 and found[0]["name"] == "person 0 of town"
    assert {row["label"] for row in found} <= {"yes", "no"}
    assert all(float(row["p(yes)"]) + float(row["p(no)"]) == pytest.approx(1, abs=1e-5) for row in found)
    encoding = json.loads((run / "encoding.json").read_text(encoding="utf-8"))
    assert encoding["columns"]["age"] == "number" and encoding["targets"][0]["labels"] == ["no", "yes"]


FORMATS = {
    "no names": (",", "utf-8", "data.header=false", "x9"),
    "semicolons": (";", "utf-8", "data.separator=';'", "bought"),
    "utf-16": (",", "utf-16", "data.encoding=utf-16", "bought"),
    "cp1252": (";", "cp1252", "data.encoding=cp1252", "bought"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_predictions_are_written_in_the_format_of_the_runs_file(name, tmp_path, monkeypatch, capsys):
    separator, encoding, key, target = FORMATS[name]
    table, one, two = (tmp_path / f"{stem}.csv" for stem in ("table", "one", "two"))
    write(table, people(), separator, encoding)
    if name == "no names":
        table.write_text(table.read_text(encoding).partition("\n")[2], encoding)
    run = trained(tmp_path / "run", ["data=table", f"data.file={table}", f"data.target={target}", key, *SMALL])
    assert command(monkeypatch, capsys, "predict", run, table, "--out", one)[::2] == (0, "")
    assert command(monkeypatch, capsys, "predict", run, one, "--out", two)[::2] == (0, "")
    first, second = (path.read_text(encoding) for path in (one, two))
    assert "Köln" in first and [line.rpartition(separator)[2] for line in first.splitlines()] == [
        line.rpartition(separator)[2] for line in second.splitlines()
    ]
    assert first == second


def test_predictions_replace_no_column(tmp_path, monkeypatch, capsys):
    """Neither the truth, nor columns that are left out or learned from. Files of other columns make no CSV."""
    names = {"bought": "label", "name": "input", "spent": "p(yes)"}
    rows = [{names.get(key, key): value for key, value in row.items()} for row in people()]
    table = write(tmp_path / "a.csv", rows)
    run = trained(tmp_path / "run", ["data=table", f"data.file={table}", "data.target=label", *SMALL])
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert command(monkeypatch, capsys, "predict", run, table, "--out", one)[::2] == (0, "")
    assert command(monkeypatch, capsys, "predict", run, one, "--out", two)[::2] == (0, "")
    found = pl.read_csv(one, infer_schema=False).to_dicts()
    assert one.read_text() == two.read_text()
    assert [{key: row[key] for key in rows[0]} for row in found] == [
        {key: str(value) if value != "" else None for key, value in row.items()} for row in rows
    ]
    assert {row["predicted label"] for row in found} <= {"yes", "no"} and "predicted p(yes)" in found[0]
    lines = [json.loads(line) for line in command(monkeypatch, capsys, "predict", run, one)[1].splitlines()]
    assert [line["predicted label"] for line in lines] == [row["predicted label"] for row in found]
    assert "predicted predicted label" not in lines[0] and set(lines[0]["probabilities"]) == {"yes", "no"}
    lacking = write(tmp_path / "b.csv", [{k: v for k, v in row.items() if k != "label"} for row in rows[:3]])
    code, out, err = command(monkeypatch, capsys, "predict", run, table, lacking, "--out", tmp_path / "both.csv")
    assert code == 2 and "not all files have the same columns" in err and not (tmp_path / "both.csv").exists()


def test_the_positive_class_can_be_chosen(table, tmp_path):
    data = loaded(table, "data.positive=no")
    assert data.spec.labels == ("yes", "no")
    assert [people()[row]["bought"] for row in data.origins("test")] == [
        data.spec.labels[y] for y in data.resident.targets("test")
    ]
    with pytest.raises(UserError, match=r"data.positive=yess: the classes of bought are no, yes; did you mean 'yes'\?"):
        loaded(table, "data.positive=yess")
    with pytest.raises(UserError, match="data.positive=Bonn: the classes of town are Aachen, Bonn, Köln"):
        loaded(table, "data.positive=Bonn", target="town")
    with pytest.raises(UserError, match="data.positive=yes: the target is not a class"):
        loaded(table, "data.positive=yes", target="spent")


def test_a_group_in_two_files_is_refused(tmp_path):
    one, two = (write(tmp_path / f"{i}.csv", people()[i : i + 60]) for i in (0, 59))
    with pytest.raises(DataError, match=r"data\.group=name: 1 group of .* is in two files, such as person 59 of town"):
        loaded(None, f"data.train={one}", f"data.test={two}", "data.group=name")


def test_a_target_that_float32_would_round_away_is_refused(tmp_path):
    far = [row | {"spent": 1e9 + i % 13} for i, row in enumerate(people())]
    with pytest.raises(
        DataError, match=r"varies by 3\.\d+ around 1e\+09, where float32.* has steps of 64\n  expected sma"
    ):
        loaded(write(tmp_path / "a.csv", far), "data.learn=regression", target="spent")
    near = [row | {"spent": 1e9 + 1e6 * (i % 13)} for i, row in enumerate(people())]
    assert loaded(write(tmp_path / "b.csv", near), "data.learn=regression", target="spent").spec.targets == 1


def test_predictions_are_those_of_the_test_split(run, table, tmp_path, monkeypatch, capsys):
    """--on FILE scores each row: the metrics of the file with the test split's rows are the run's own."""
    code, out, _ = command(monkeypatch, capsys, "evaluate", run, "--json")
    own = json.loads(out)["metrics"]
    data = loaded(table)
    test = write(tmp_path / "test.csv", [people()[row] for row in data.resident.rows["test"].tolist()])
    code, out, _ = command(monkeypatch, capsys, "evaluate", run, "--on", test, "--json")
    assert code == 0 and json.loads(out)["metrics"] == pytest.approx(own, rel=1e-6)


def test_unseen_levels_are_counted_and_named(run, tmp_path, monkeypatch, capsys):
    found = people()[:5]
    found[1]["town"] = found[4]["town"] = "Ulm"
    code, out, err = command(monkeypatch, capsys, "predict", run, write(tmp_path / "a.csv", found))
    assert code == 0 and len(out.splitlines()) == 5
    assert err.endswith("a.csv: town: 2 of 5 rows have levels not in train: 'Ulm'\n")
    code, out, err = command(monkeypatch, capsys, "evaluate", run, "--on", tmp_path / "a.csv")
    assert code == 0 and "note: town: 2 of 5 rows have levels not in train: 'Ulm'\n" in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"age": None}, "there is no column 'age'"),
        ({"age": "old"}, "line 3: age is 'old'\n  expected a number"),
        ({"born": "soon"}, "line 3: born is 'soon'\n  expected a date, written as %Y-%m-%d"),
        ({"member": "perhaps"}, "line 3: member is 'perhaps'\n  expected true or false"),
    ],
)
def test_other_rows_are_refused(run, change, expected, tmp_path, monkeypatch, capsys):
    found = people()[:3]
    for column, value in change.items():
        if value is None:
            found = [{name: each for name, each in row.items() if name != column} for row in found]
        else:
            found[1][column] = value
    path = write(tmp_path / "a.csv", found)
    code, out, err = command(monkeypatch, capsys, "predict", run, path, "--out", tmp_path / "out.csv")
    assert code == 2 and expected in err and not (tmp_path / "out.csv").exists()


def test_resume_in_mid_epoch_is_exact(table, tmp_path):
    keys = ["data=table", f"data.file={table}", "data.target=[spent,id]", "data.weights=age", "data.missing=['']"]
    keys += ["++data.types={age: number}", "trainer.epochs=3", "data.batch_size=16", "trainer.log_every=1", *SMALL]
    path = write(tmp_path / "a.csv", [row | {"age": row["age"] or 30} for row in people()])
    config = compose(
        *[f"data.file={path}" if key.startswith("data.file") else key for key in keys], "trainer.device=cpu"
    )
    train(tmp_path / "whole", config)
    train(tmp_path / "parts", config, signals={4: 15, 9: 15})
    train(tmp_path / "parts", config, resumed=True, signals={9: 15})
    train(tmp_path / "parts", config, resumed=True)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


BAD = {
    "no column": ("a,b\n1,2\n", ["data.target=bb"], "data.target=bb: .* has no such column; did you mean 'b'"),
    "no target": ("a,b\n1,2\n", ["data.target=null"], "data.target is not set.*\n  expected one of: a, b"),
    "one value": ("a,b\n1,2\n2,2\n", [], "the target b is always 2: there is nothing to learn"),
    "all missing": ("a,b\n1,\n2,\n", [], "the target b has no values"),
    "empty": ("", [], "is empty"),
    "only a header": ("a,b\n", [], "x?.csv has no rows\n  expected a line of names, and lines"),
    "an empty first line": ("\na,b\n1,2\n2,3\n", [], "line 1: it is empty"),
    "no table": (b"\x89PNG\r\n\x1a\n\0\0", [], "is an image, not a table"),
    "zero bytes": (b"a,b\n1,\0\n", [], "holds zero bytes"),
    "a spreadsheet": (b"PK\x03\x04", [], "a zip or a spreadsheet"),
    "too long a row": ("a,b\n1,2\n1,2,3\n", [], "line 3: 3 values, but the table has 2 columns"),
    "too short a row": ('a,b\n"1\n",2\n1\n3,4\n', [], "line 4: 1 value, but the table has 2 columns"),
    "same names": ("a,b,a\n1,2,3\n", [], "line 1: several columns are named 'a'"),
    "mixed": ("a,b\n" + 30 * "1,2\n" + "x,3\n" + 9 * "2,3\n", [], "line 32: a is 'x'\n  expected a number"),
    "a bad date": ("a,b\n" + 30 * "2020-01-31,2\n" + "2020-02-31,3\n", [], "line 32: a is '2020-02-31'"),
    "infinite": ("a,b\n1.5,2\ninf,3\n" + 9 * "0,2\n1,3\n", [], "line 3: a is 'inf'\n  expected a finite number"),
    "not utf-8": (b"a,b\n1,x\n2,\xff\n", [], "line 3: the byte 0xff is not utf-8"),
    "an encoding": ("a,b\n1,2\n", ["data.encoding=klingon"], "there is no such encoding"),
    "beyond float32": ("a,b\n1.5,2\n1e39,3\n" + 9 * "0,2\n1,3\n", [], "a finite number, at most 3.4e"),
    "too many digits": ("a,b\n" + 30 * "1,2\n" + f"{10**50},3\n", [], r"line 32: a is '1000.*\n.*drop=\[a\]', or set"),
    "a target beyond float32": ("b,a\n" + 9 * "1.5,3\n" + "-1e39,2\n", [], "line 11: b is .*\\n.*, at most 3.4e"),
    "a pattern": ("^a$,b\n1,2\n2,3\n", [], "a column is named '.a.', which polars takes for a pattern"),
    "a codec": ("a,b\n1,2\n", ["data.encoding=hex"], "there is no such encoding"),
    "a codec that decodes nothing": ("a,b\n1,2\n", ["data.encoding=undefined"], "is not undefined"),
    "half a letter": (b"a,b\n\\ud800,2\n", ["data.encoding=unicode_escape"], "is not unicode_escape"),
    "a quote as separator": ("a,b\n1,2\n", ["data.separator='\"'"], "space or one character"),
    "a name in another encoding": (b"a\xff,b\n1,2\n", [], "line 1: the byte 0xff is not utf-8"),
    "few rows": ("a,b\n1,2\n2,3\n", [], "cannot fill the splits|no class has 3 rows, one for each"),
    "one group": ("a,b,g\n" + 9 * "1,2.5,x\n2,3.5,x\n", ["data.group=g"], "1 group cannot fill the splits"),
    "one time": ("a,b,t\n" + 9 * "1,2.5,4\n2,3.5,4\n", ["data.time=t"], "1 different time cannot fill"),
    "a time in words": ("a,b,t\n" + 9 * "1,2.5,x\n2,3.5,y\n", ["data.time=t"], "neither dates nor numbers"),
    "an open quote": ("a,b\n" + 9 * "x,1\n" + '"y,2\n' + 9 * "x,1\n", [], 'line 11: a quote \\("\\) is not closed'),
    "an open quote at the end of a line": ("a,b\n" + 9 * "x,1\n" + 'y,"2\n' + 9 * "x,1\n", [], "line 11: a quote"),
    "a quote that joins lines": ("a,b,c\n" + 9 * "x,1,2\n" + '"y,2,3\nx,1,2\n",2\n', [], "lines 11 to 13, which a"),
    "no weight": ("a,b,w\n" + 9 * "1,2.5,1\n2,3.5,\n", ["data.weights=w"], "line 3: the weight w has no value"),
    "negative weight": ("a,b,w\n" + 9 * "1,2.5,1\n2,3.5,-1\n", ["data.weights=w"], "the weight w is -1"),
    "nothing to learn from": ("a,b\n" + 9 * "1,2\n1,3\n", [], r"no column to learn from: a \(always 1\)"),
    "only the target": ("b\n" + 9 * "1\n2\n", [], "no column to learn from: it has only the target\n"),
    "only the target and a dropped column": ("a,b\n" + 9 * "1,2\n2,3\n", ["data.drop=[a]"], r"from: a \(data.drop\)"),
    "a decimal comma": ("a;b\n" + "".join(f"1,{i};{i % 2}\n" for i in range(60)), [], "comma, such as '1,0': expe"),
    "a target with a comma": ("a;b\n" + 9 * "1;1,5\n2;2,5\n", ["data.learn=regression"], "'1,5'\n  expe.* not with a"),
    "a kind": ("a,b\n1,2\n2,3\n", ["++data.types={a: float}"], "data.types.a=float"),
    "a typed column": ("a,b\n1,2\n2,3\n", ["++data.types={c: number}"], "data.types=c: .* no such column"),
    "words as targets": ("a,b\n" + 9 * "1,x\n2,y\n", ["data.learn=regression"], "b is 'x'\n  expected a number"),
    "too many classes": ("a,b\n" + "".join(f"{i},n{i}\n" for i in range(50)), [], "50 different values in 50"),
    "a word as target": ("a,b\n" + "".join(f"{i % 9},{i}\n" for i in range(60)) + "3,dear\n", [], "line 62: b is"),
    "two ways to split": ("a,b,g,t\n" + 9 * "1,2,x,4\n2,3,y,5\n", ["data.group=g", "data.time=t"], "groups or by time"),
    "a dropped target": ("a,b\n1,2\n2,3\n", ["data.drop=[b]"], "data.drop=b: that column is the target"),
    "shares": ("a,b\n1,2\n2,3\n", ["data.split=[0.5,0.5,0.5]"], "whose sum is 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused(case, tmp_path):
    content, keys, expected = BAD[case]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=expected):
        make(path, *keys, target="b").load(CPU)


def test_a_type_that_is_no_kind_is_left_out_by_its_name(tmp_path):
    numbers = [i % 7 for i in range(40)]
    frame = pl.DataFrame({"a": numbers, "b": [i % 2 for i in range(40)], "took": numbers})
    frame.with_columns(pl.col("took").cast(pl.Duration("us"))).write_parquet(tmp_path / "x.parquet")
    about = loaded(tmp_path / "x.parquet", target="b").header_lines
    assert about["left out"] == "took (values of type Duration, which are not read)"


def test_the_first_word_among_numbers_is_named(tmp_path):
    lines = "".join(f"{i if i % 5 != 4 else f'unknown{i}'},{i % 7},{i % 2}\n" for i in range(100))
    (tmp_path / "x.csv").write_text("a,c,b\n" + lines)
    reason = loaded(tmp_path / "x.csv", target="b").header_lines["left out"]
    assert reason.endswith(f"; 80% are numbers, but {tmp_path / 'x.csv'}, line 6 has 'unknown4')")


def test_numbers_with_a_comma_are_named_in_the_header(tmp_path):
    """Left out if there are too many of them, else a category."""
    lines = [f"{i % 9},5;{i},5;{'abc'[i % 3]};{i / 7}" for i in range(60)]
    (tmp_path / "x.csv").write_text("few;many;kind;b\n" + "\n".join(lines) + "\n")
    data = loaded(tmp_path / "x.csv", target="b")
    assert data.header_lines["commas"] == "few: numbers with a comma are categories; with a point they are numbers"
    assert "many (text or an id: 60 different values in 60 rows; numbers with a comma" in data.header_lines["left out"]
    assert "commas" not in loaded(tmp_path / "x.csv", "++data.types.few=category", target="b").header_lines
    series = build(compose("data=series", f"data.file={tmp_path}/x.csv", "data.target=b", "data.window=4")[0]["data"])
    series.load(CPU)
    assert series.header_lines["commas"].startswith("few: numbers with a comma")


@pytest.mark.parametrize(("mean", "deviation", "text"), [
    (5531.2, 1430.4, "5531 +/- 1430"), (0.5, 1.25, "0.50 +/- 1.25"), (1234567, 0.5, "1234567.000 +/- 0.500"),
    (2e5, 79000, "200000 +/- 79000"), (3e9, 2e7, "3.000e+09 +/- 2.00e+07"), (0, 2e-9, "0.000e+00 +/- 2.00e-09"),
])  # fmt: skip
def test_a_mean_and_its_deviation_have_one_notation(mean, deviation, text):
    assert described(mean, deviation) == text


def test_numbers_of_too_many_digits_may_be_left_out_or_a_category(tmp_path):
    lines = "".join(f"{10**50 + i // 4},{i % 7},{i % 2}\n" for i in range(40))
    (tmp_path / "x.csv").write_text("card,a,b\n" + lines)
    assert (
        loaded(tmp_path / "x.csv", "data.drop=[card]", target="b")
        .header_lines["left out"]
        .startswith("card (data.drop)")
    )
    chosen = loaded(tmp_path / "x.csv", "++data.types={card: category}", target="b")
    assert set(chosen.fitted()["categories"][0]["levels"]) <= {str(10**50 + i) for i in range(10)}


def test_a_given_split_without_targets_is_refused(tmp_path):
    for name, lines in (("train", 9 * "1,x\n2,y\n"), ("val", 3 * "1,\n")):
        (tmp_path / f"{name}.csv").write_text("a,b\n" + lines)
    files = [f"data.{name}={tmp_path / name}.csv" for name in ("train", "val")]
    with pytest.raises(UserError, match="data.val: the target b has no values\n  expected a value in most rows"):
        build(compose("data=table", "data.target=b", "model=linear", *files)[0]["data"]).load(CPU)


@pytest.mark.parametrize("name", ["a[1].csv", "a*.csv", "a?.csv", "{a,b}.csv", "a\x1b.csv"])
def test_a_column_name_is_not_a_pattern(name, tmp_path):
    """Browsers name a second download a[1].csv."""
    for other in ("a1.csv", "ab.csv", name):
        (tmp_path / other).write_text("a,b\n" + 20 * f"{len(other)},0\n0,1\n")
    assert read_table(tmp_path / name, Format())[0].height == 40


def test_empty_rows_of_a_parquet_file_count_in_messages(tmp_path):
    rows = [
        (None, None),
        ("1", "a"),
        (None, None),
        ("2", "b"),
        (None, None),
        *(("3", "a") for _ in range(40)),
        ("x", "b"),
    ]
    pl.DataFrame(rows, ["x", "y"], orient="row").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a.parquet, row 46: x is 'x'"):
        loaded(tmp_path / "a.parquet", target="y")


def test_types_without_numbers_or_texts_are_refused_for_every_role(tmp_path):
    """They are left out where the config does not name them."""
    days = [date(2024, 1, 1 + i % 3) for i in range(40)]
    columns = {
        "List": [[i % 3] for i in range(40)],
        "Struct": [{"a": i % 3} for i in range(40)],
        "Duration": [timedelta(days=1 + i % 3) for i in range(40)],
        "Time": [time(1 + i % 3) for i in range(40)],
        "Binary": [b"%d" % (i % 3) for i in range(40)],
        "Date": days,
        "x": [i % 7 + 0.5 for i in range(40)],
        "y": [i % 2 for i in range(40)],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    for kind in ("List", "Struct", "Duration"):
        keys = [f"data.group={kind}", f"data.time={kind}", f"data.weights={kind}", f"++data.types.{kind}=category"]
        for key, target in [(f"data.target={kind}", kind), *((key, "y") for key in keys)]:
            with pytest.raises(DataError, match=rf"data\..*{kind}.*type {kind} there\n  expected"):
                loaded(tmp_path / "a.parquet", key, target=target)
    for kind in ("Time", "Binary", "Date"):
        with pytest.raises(DataError, match=f"row 1: {kind} holds values of type {kind}\n  expected numbers"):
            loaded(tmp_path / "a.parquet", f"data.weights={kind}", target="y")
    assert list(loaded(tmp_path / "a.parquet", target="y").fitted()["columns"]) == ["Date", "x"]


def test_headers_of_any_length_and_letters(tmp_path):
    names = [f"gene {i:030}" for i in range(9000)]  # more bytes than decide the separator
    (tmp_path / "wide.csv").write_text(",".join(["b", *names]) + "\n" + 2 * (",".join(map(str, range(9001))) + "\n"))
    assert read_table(tmp_path / "wide.csv", Format())[0].columns == ["b", *names]
    (tmp_path / "odd.csv").write_text("a\x0cb,c\u2028d\n1,2\n")
    assert read_table(tmp_path / "odd.csv", Format())[0].columns == ["a\x0cb", "c\u2028d"]
    (tmp_path / "mac.csv").write_bytes(b"a,b\r1,x\r2,y\r")
    assert read_table(tmp_path / "mac.csv", Format())[0].rows() == [(1, "x"), (2, "y")]


def test_polars_prints_no_stack_trace(tmp_path, monkeypatch, capfd):
    def read(*source, **options):
        os.write(2, b"stack backtrace:")
        raise pl.exceptions.PanicException("range.end <= self.size")

    monkeypatch.setattr(pl, "read_parquet", read)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="x.parquet is not an intact Parquet file: range.end"):
        read_table(tmp_path / "x.parquet", Format())
    assert capfd.readouterr().err == "" and os.write(2, b"x") == 1 and capfd.readouterr().err == "x"


def test_damaged_files_are_refused(tmp_path):
    """Whatever byte is wrong, and nothing else is raised."""
    table, random = pl.DataFrame({"a": range(200), "b": [str(i % 7) for i in range(200)]}), np.random.RandomState(0)
    table.write_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(table.write_csv().encode()))
    refused = 0
    for path in (tmp_path / "x.parquet", tmp_path / "x.csv.gz"):
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[random.randint(4, len(whole))] ^= random.randint(1, 256)
            path.write_bytes(damaged)
            try:
                read_table(path, Format())
            except UserError:
                refused += 1
    assert refused > 40
    table[:0].write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has no rows"):
        read_table(tmp_path / "x.parquet", Format())


def test_values_that_python_cannot_hold(tmp_path):
    """Years before 1 and after 9999, and whole numbers that are larger than 64 bits."""
    dates = pl.Series("a", [10**15, 1, 2, 3] * 5).cast(pl.Datetime("ms"))
    large = pl.Series("c", [1.5e19, 1.6e19] * 10)
    pl.DataFrame([dates, large, pl.Series("b", [0, 1] * 10)]).write_parquet(tmp_path / "x.parquet")
    data = loaded(tmp_path / "x.parquet", "++data.types={c: category}", target="b")
    assert data.fitted()["categories"][0]["levels"] == ["1.5e+19", "1.6e+19"]
    table = pl.DataFrame([pl.Series("a", [1, 2**62] * 10).cast(pl.Datetime("ms")), large.rename("b")])
    table.write_parquet(tmp_path / "far.parquet")
    with pytest.raises(UserError, match="row 2: a is a date hundreds of thousands of years away"):
        loaded(tmp_path / "far.parquet", target="b")
    (tmp_path / "x.csv").write_text("a,b\n" + "".join(f"{i:04}-01-01,{i % 2}\n" for i in range(40)))
    assert loaded(tmp_path / "x.csv", target="b").fitted()["columns"] == {"a": "%Y-%m-%d"}


def test_many_levels_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "".join(f"level {i % 20_000},{i % 2}\n" for i in range(60_000)))
    with pytest.raises(UserError, match=r"20,000 different values in 60,000 rows(.|\n)*data.drop=\[a\]"):
        loaded(path, target="b")
    with pytest.raises(UserError, match="no column to learn from"):
        loaded(path, "data.drop=[a]", target="b")


def test_repeated_texts_are_read_as_any_others(tmp_path):
    """Few different texts are read as levels: with blanks, missing words, numbers, dates and late new ones in them."""
    lines = [f"{a},{b},{c},{d},,{e}" for a, b, c, d, e in 40 * [
        ("x", "NA", "7", "2024-02-01", "u"), (" y", "q", "NA", "2024-02-03", "v"), ("y ", " r", " 8 ", "?", "u"),
    ]]  # fmt: skip
    lines += [f"late {i},q,9,2024-02-{i % 28 + 1:02d},,v" for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,e,y", *lines]))
    frame, _ = read_table(tmp_path / "t.csv", Format(missing=("", "NA", "?")))
    texts, _ = read_table(tmp_path / "t.csv", Format(missing=("", "NA", "?")), ("a", "b", "c", "d", "e", "y"))
    assert frame.schema["y"] == pl.Enum(["u", "v"]) and frame.schema["b"] == pl.String == frame.schema["a"]
    assert frame.cast(pl.String).to_dict(as_series=False) == texts.to_dict(as_series=False)
    assert frame["b"].to_list()[:3] == [None, "q", "r"] and frame["e"].null_count() == frame.height
    data = loaded(tmp_path / "t.csv", "++data.types={a: category}", target="y")
    assert data.fitted()["columns"] == {"a": "category", "b": "category", "c": "number", "d": "%Y-%m-%d"}


def test_quoted_values_keep_separators_and_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + 20 * '"x, y\nz",1.5\n"u ""v""",2.5\n')
    data = loaded(path, target="b")
    assert data.fitted()["categories"][0]["levels"] == ['u "v"', "x, y\nz"] and data.size("all") == 40


@pytest.mark.parametrize("change", ["", "quote", "late text", "late number", "late gap", "long", "short", "no end"])
def test_blocks_of_a_file_give_the_rows_of_the_whole_file(change, tmp_path, monkeypatch):
    """Blocks end after records. A value of another type, or lines of other lengths, in a late block are no other."""
    rows = [f'{i},"say ""{i % 3}""\n, {i % 4}",{i / 7:.4f},2020-01-{i % 28 + 1:02d},{i % 2}' for i in range(300)]
    odd = {
        "quote": '7,5" pipe,1,2020-01-01,1',
        "late text": "x,y,1,2020-01-01,1",
        "late number": "7.5,y,1,2020-01-01,1",
    }
    odd |= {
        "late gap": "7,NA,?,NA,1",
        "long": "7,y,1,2020-01-01,1,2",
        "short": "7,y",
        "no end": f'7,"{999 * "z"}",1,,1',
    }
    if change == "quote" and pl.__version__.startswith("2.0."):
        pytest.skip("polars 2.0, the newest for Python 3.10, takes such a quote for a part of the value")
    rows[250:250] = [odd[change]] if change else []
    path, form = tmp_path / "t.csv", Format(missing=("", "NA", "?"))
    path.write_text("a,b,c,d,y\n" + "\n".join(rows))

    def found(size: int) -> tuple[dict, list] | str:
        for name in ("BLOCK", "HEAD"):
            monkeypatch.setattr(blocks, name, size)
        try:
            frame, _ = read_table(path, form, time="d")
        except UserError as error:
            return str(error)
        return dict(frame.cast({pl.Enum: pl.String, pl.Categorical: pl.String}).schema), frame.rows()

    whole = found(10**6)
    assert found(512) == whole and isinstance(whole, str) == (change in ("quote", "long", "short"))
    if change == "":
        assert whole[0]["d"] == pl.Datetime("us") and whole[1][5][1] == 'say "2"\n, 1'


def test_baselines_are_printed_beside_the_test_metrics(run, monkeypatch, capsys):
    """The trivial model's accuracy is the share of the commonest class; trees see that sex decides everything."""
    code, out, _ = command(monkeypatch, capsys, "baseline", run, "--json")
    found = json.loads(out)["test"]
    assert code == 0 and list(found) == ["this run", "gradient boosting", "linear", "trivial"]
    summary = json.loads((run / "summary.json").read_text())["test"]
    assert found["this run"] == {name: summary[f"test/{name}"] for name in ("loss", "acc")}
    totals = [sum(row) for row in summary["confusion_matrix"]]
    assert found["trivial"]["acc"] == pytest.approx(max(totals) / sum(totals))
    assert found["gradient boosting"]["acc"] == found["linear"]["acc"] == 1
    code, out, _ = command(monkeypatch, capsys, "baseline", run)
    assert code == 0 and [line.split()[0] for line in out.splitlines()[3:]] == ["this", "gradient", "linear", "trivial"]


def test_importance_names_the_column_that_decides(run, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "importance", run, "--repeats", "3", "--json")
    found = json.loads(out)
    assert code == 0 and found["metric"] == "test/acc" and next(iter(found["worse_by"])) == "sex"
    assert set(found["worse_by"]) == {"sex", "age", "member", "born", "town", "spent"}
    assert (run / "plots" / "importance.png").is_file()
    assert command(monkeypatch, capsys, "report", run, "--out", run / "r.html")[0] == 0
    page = (run / "r.html").read_text(encoding="utf-8")
    assert "category of 2 levels: f, m; worse by" in page and "date: year, month, day, weekday; " in page
    assert command(monkeypatch, capsys, "importance", run, "--repeats", "0")[0] == 2


def test_importance_shuffles_all_inputs_of_a_column_together(table):
    data = loaded(table, target="spent")
    columns = columns_of(data, data.spec)
    assert sorted(position for positions in columns.values() for position in positions) == list(
        range(data.spec.features)
    )
    assert len(columns["age"]) == 2 and len(columns["born"]) == 4 and len(columns["sex"]) == 1


@pytest.mark.parametrize("command_name", ["baseline", "importance"])
def test_only_tables_have_columns(command_name, tmp_path, monkeypatch, capsys):
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[4]"])
    code, _, err = command(monkeypatch, capsys, command_name, folder)
    assert code == 2 and "expected a run on rows of a table with targets" in err


@pytest.mark.thorough
@pytest.mark.parametrize(("target", "form"), [("bought", "csv"), ("spent", "csv"), ("bought", "parquet")])
def test_the_documented_server_predicts_what_the_run_predicts(target, form, tmp_path, monkeypatch, capsys):
    """The Python of docs/tables.md, with an exported graph, its encoding and the threshold that val chose.

    A Parquet file has days and times as such; the rows to predict are those of a CSV.
    """
    import onnx

    table = [{k: v for k, v in row.items() if k not in ("name", "id")} for row in people()]
    table = [row | {"age": row["age"] or "NA"} for row in table]
    path = write(tmp_path / "people.csv", table)
    if form == "parquet":
        rows = pl.read_csv(path, try_parse_dates=True, null_values="NA")
        rows = rows.with_columns(seen=pl.col("born").cast(pl.Datetime) + pl.duration(minutes=77 * pl.col("spent")))
        rows.write_csv(path)
        rows.write_parquet(tmp_path / "people.parquet")
    keys = ["data=table", f"data.file={path.with_suffix('.' + form)}", f"data.target={target}", *LEARNS, *SMALL]
    folder = trained(tmp_path / "run", keys + ["task.threshold=f1"] * (target == "bought"))
    assert command(monkeypatch, capsys, "export", folder, "--format", "onnx", "--out", tmp_path / "model.onnx")[0] == 0
    encoding = json.loads((tmp_path / "encoding.json").read_text(encoding="utf-8"))
    assert {"", "year", "missing"} <= {number["part"] for number in encoding["numbers"]}
    assert (encoding["columns"]["born"] == "date") == (form == "parquet")
    notes = {each.key: json.loads(each.value) for each in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert encoding.get("threshold") == notes["dlrun"].get("threshold") != 0.5
    lines = [json.loads(line) for line in command(monkeypatch, capsys, "predict", folder, path)[1].splitlines()]
    text = (CONFIGS.parent / "docs" / "tables.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert sum(map(bool, program.splitlines())) <= 20
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["serve.py", str(path)])
    exec(program, {})
    served = capsys.readouterr().out.splitlines()
    if target == "bought":
        assert served == [line["label"] for line in lines] and len(set(served)) == 2
    else:
        wanted = [line["output"] for line in lines]
        assert np.allclose([float(each.strip("[]")) for each in served], wanted, rtol=1e-5)


def test_a_key_is_named_as_in_the_config(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + 30 * "1.5,2\n2.5,3\n")
    for word in ("data.target=[b,b]", "data.target=[a,a]"):
        with pytest.raises(UserError, match="a column is named twice"):
            loaded(tmp_path / "x.csv", word)
