"""Frames, dictionaries and arrays as rows of a table: values pass as they are, in training, predict and evaluate."""

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pandas_like import DataFrame as Frame
from pandas_like import Series

import dlrun

WORDS = ["model.hidden=[8]", "trainer.epochs=1", "trainer.device=cpu", "trainer.log_every=0"]
RANDOM = np.random.default_rng(0)
N = 120
A = RANDOM.normal(size=N)
KIND = np.array(["p", "q", "r"])[RANDOM.integers(0, 3, N)]
DAYS = [dt.date(2020, 1, 1) + dt.timedelta(days=7 * i) for i in range(N)]


def trained(x, y, *words):
    return dlrun.train(*WORDS, *words, x=x, y=y)


def of_file(path, frame, y):
    """A run that learned from a file of this frame and y."""
    whole = frame.with_columns(y=pl.Series(y))
    whole.write_csv(path) if path.endswith(".csv") else whole.write_parquet(path)
    return dlrun.train(*WORDS, "data=table", f"data.file={path}", "data.target=y")


def error_of(run, frame, y):
    """The mean squared error by `outputs`."""
    return pytest.approx(float(np.mean((run.outputs(frame)[:, 0] - y) ** 2)), rel=1e-4)


@pytest.mark.parametrize("rows", [slice(0, N), slice(0, 1), slice(0, 5), KIND == "q", A > 1])
def test_a_frame_is_evaluated_with_the_encoding_of_the_run(rows):
    frame = pl.DataFrame({"a": A, "kind": KIND})
    y = A + (KIND == "q")
    run = trained(frame, y)
    some, targets = frame.filter(pl.Series(np.isin(np.arange(N), np.arange(N)[rows]))), y[rows]
    assert run.evaluate(x=some, y=targets)["mse"] == error_of(run, some, targets)
    assert run.evaluate(x=some, y=np.full(len(targets), 2.5))["mse"] == error_of(run, some, 2.5)


def test_classes_are_those_of_the_run():
    frame = pl.DataFrame({"a": A})
    run = trained(frame, KIND)
    labels = run.predict(frame)["label"].to_numpy()
    for rows in (KIND != "p", KIND == "r", np.arange(N) == 0):
        found = run.evaluate(x=frame.filter(pl.Series(rows)), y=KIND[rows])
        assert found["acc"] == pytest.approx(np.mean(labels[rows] == KIND[rows]))
    for strange in (["z"], ["p", "z"]):
        with pytest.raises(dlrun.UserError, match=r"'z', a class that the run does not know\n  expected one of: p, q"):
            run.evaluate(x=frame[: len(strange)], y=strange)
    assert run.evaluate(x=frame.with_columns(other=pl.Series(KIND)), y="other") == run.evaluate(x=frame, y=KIND)
    with pytest.raises(dlrun.UserError, match=r"y without x\n  expected x="):
        run.evaluate(y=KIND)


@pytest.mark.parametrize("values", [
    ["NA", "null", "None"], ["", "x", "y"], [" a", "a", "a "], ["a\r", "a", "a\r\n"], ["?", "a\0", "\0"],
    ["007", "07", "x"], ["True", "true", "TRUE"], [None, "NA", "b"], [True, False, None], ["2020-01-01", "x", "y"],
])  # fmt: skip
def test_values_of_frames_and_dictionaries_pass_as_they_are(values, capsys):
    frame = pl.DataFrame({"c": pl.Series([values[i % 3] for i in range(N)], strict=False), "a": A})
    y = np.arange(N) % 3 + A
    run = trained(frame, y)
    assert run.evaluate("all")["mse"] == error_of(run, frame, y) == run.evaluate(x=frame, y=y)["mse"]
    capsys.readouterr()
    wanted = run.outputs(frame)
    assert np.array_equal(run.outputs(list(frame.iter_rows(named=True))), wanted)
    assert np.array_equal(run.outputs(Frame(frame.to_dict(as_series=False))), wanted), "of pandas"
    assert not capsys.readouterr().err, "no level is new"


@pytest.mark.parametrize("source", ["frame", "t.csv", "t.parquet"])
def test_each_source_predicts_each_kind_of_rows(source):
    """Texts of a CSV have no blanks around them, and NA means no value, unless the run knows it as a level."""
    texts = ["north", "south", "west" if source == "t.csv" else "NA"]
    frame = pl.DataFrame({"c": [texts[i % 3] for i in range(N)], "a": A, "day": DAYS, "sure": A > 0})
    y = np.arange(N) % 3 + A
    run = trained(frame, y) if source == "frame" else of_file(source, frame, y)
    wanted = run.outputs(frame)
    assert run.evaluate("all")["mse"] == error_of(run, frame, y) == run.evaluate(x=frame, y=y)["mse"]
    frame.write_csv("rows.csv")
    frame.write_parquet("rows.parquet")
    rows = list(frame.iter_rows(named=True))
    iso = [row | {"day": row["day"].isoformat()} for row in rows]
    times = [row | {"day": f"{row['day'].isoformat()}T00:00:00"} for row in rows]
    for given in (rows, iso, Path("rows.csv"), Path("rows.parquet"), times):
        assert np.array_equal(run.outputs(given), wanted)
    odd = frame.with_columns(c=pl.lit("  north "))
    is_text = source != "frame"
    assert np.array_equal(run.outputs(odd), run.outputs(frame.with_columns(c=pl.lit("north")))) == is_text
    known = run.outputs(frame.with_columns(c=pl.lit("NA")))
    assert np.array_equal(known, run.outputs(frame.with_columns(c=pl.lit(None, pl.String)))) == (source == "t.csv")


def test_texts_that_are_no_iso_dates_are_refused():
    run = trained(pl.DataFrame({"day": DAYS, "a": A}), A)
    assert len(run.predict([{"day": "2020-01-05", "a": 1}, {"day": "2020-01-05 10:30", "a": 1}, {"a": 2}])) == 3
    with pytest.raises(dlrun.UserError, match="x, row 2: day is '05/01/2020'\n  expected a date, such as 2024-12-31"):
        run.predict([{"day": None, "a": 1}, {"day": "05/01/2020", "a": 1}])


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("%d.%m.%Y", ["2020-01-05", "2020-01-05T00:00", "05.01.2020"]),
        ("%m/%d/%y", ["2020-01-05", "01/05/20"]),
        ("%Y-%m-%d %H:%M:%S", ["2020-01-05T00:00:00", "2020-01-05T00:00", "2020-01-05", "2020-01-05 00:00:00"]),
    ],
)
def test_iso_dates_are_read_by_runs_on_another_format(form, texts):
    """docs/python.md promises it, and they were refused."""
    frame = pl.DataFrame({"day": DAYS, "a": A})
    run = of_file("t.csv", frame.with_columns(day=frame["day"].cast(pl.Datetime("us")).dt.strftime(form)), A)
    wanted = run.outputs({"day": dt.date(2020, 1, 5), "a": 1.0})
    for text in texts:
        assert np.array_equal(run.outputs({"day": text, "a": 1.0}), wanted), text
    both = run.outputs([{"day": each, "a": 1.0} for each in texts])
    np.testing.assert_allclose(both, np.repeat(wanted, len(texts), 0), rtol=1e-5)
    for wrong in ("20-01-05", "2020-13-05", "5. Jan"):
        with pytest.raises(dlrun.UserError, match=f"x, row 1: day is '{wrong}'\n  expected a date, written as %"):
            run.predict({"day": wrong, "a": 1.0})


def test_a_date_of_numpy_is_a_date():
    run = trained(pl.DataFrame({"day": DAYS, "a": A}), A)
    wanted = run.outputs({"day": dt.date(2020, 1, 5), "a": 1.0})
    for unit in ("D", "s", "ns"):
        day = np.datetime64("2020-01-05", unit)
        assert np.array_equal(run.outputs({"day": day, "a": 1.0}), wanted)
        assert np.array_equal(
            run.outputs([{"day": day, "a": 1.0}, {"day": np.datetime64("NaT", "D"), "a": 1.0}])[:1], wanted
        )


def test_a_resumed_run_keeps_its_target():
    """Another one was ignored."""
    frame = pl.DataFrame({"a": A, "b": A + 1, "y${a}\\": A * 2})
    run = dlrun.train(*WORDS, x=frame, y="y${a}\\")
    with pytest.raises(dlrun.UserError, match=r"y='b': the run in .* learned the column 'y\${a}.*'\n  expected y='y"):
        dlrun.resume(run, "trainer.epochs=3", x=frame, y="b")
    assert dlrun.resume(run, "trainer.epochs=3", x=frame, y="y${a}\\").summary["epochs"] == 3


def test_columns_that_training_left_out_are_ignored(tmp_path):
    odd = {
        "long": [dt.timedelta(hours=i) for i in range(N)],
        "list": [[i, i] for i in range(N)],
        "object": pl.Series([object() for _ in range(N)], dtype=pl.Object),
    }
    frame = pl.DataFrame({"a": A} | odd)
    run = trained(frame, A)
    wanted = run.outputs(frame.select("a"))
    assert np.array_equal(run.outputs(frame), wanted) and run.evaluate(x=frame, y=A)["mse"] == error_of(run, frame, A)
    assert np.array_equal(run.outputs(list(frame.iter_rows(named=True))), wanted)
    frame.drop("object").write_parquet("odd.parquet")
    assert np.array_equal(run.outputs("odd.parquet"), wanted)
    with pytest.raises(dlrun.UserError, match="x, row 1: .* List"):
        run.predict({"a": [1, 2]})


def test_rows_without_a_value_are_predicted():
    frame = pl.DataFrame({"a": [None if i % 3 == 0 else float(i % 50) for i in range(N)]})
    run = trained(frame, A)
    assert len(run.predict(frame)) == N and len(run.predict({"a": None})) == 1
    assert len(run.predict([{"a": None}, {"a": 3}, {"a": float("nan")}])) == 3
    frame.write_parquet("rows.parquet")
    assert len(run.predict("rows.parquet")) == N
    with pytest.raises(dlrun.UserError, match="no inputs\n  expected rows"):
        run.predict(frame[:0])


GAPS = np.where(np.arange(N) % 7 == 0, np.nan, A)


@pytest.mark.parametrize("gaps", [
    GAPS, pl.Series(GAPS), pl.Series(GAPS).fill_nan(None), [None if np.isnan(v) else v for v in GAPS],
    np.array([None if np.isnan(v) else v for v in GAPS], object), Series("y", GAPS.tolist()),
    Frame({"y": GAPS.tolist()}), "y",
])  # fmt: skip
def test_rows_without_a_target_are_left_out(gaps):
    frame = pl.DataFrame({"a": A, "b": A**2})
    x = frame.with_columns(y=pl.Series(GAPS)) if isinstance(gaps, str) else frame
    run = trained(x, gaps)
    assert run.status == "finished"
    assert f"{np.isnan(GAPS).sum()} rows without a value" in (run.folder / "run.log").read_text()
    kept = ~np.isnan(GAPS)
    assert run.evaluate(x=x, y=gaps)["mse"] == error_of(run, frame.filter(pl.Series(kept)), GAPS[kept])


def test_targets_without_a_name_replace_no_column():
    frame = pl.DataFrame({"target": A, "target_2": A**2})
    for y in (A > 0, pl.Series(A > 0), Series(0, (A > 0).tolist())):
        run = trained(frame, y)
        spec = run.finished.data.spec
        assert spec.names == ("target", "target_2") and spec.target_names == ("target_3",)
        assert run.evaluate(x=frame, y=y)["acc"] == pytest.approx(run.evaluate("all")["acc"])
    assert trained(frame, pl.Series("target", A > 0)).finished.data.spec.names == ("target_2",), "that is its name"


def test_a_column_s_name_may_be_a_number_and_y_a_frame_of_one_column():
    frame = Frame({0: A.tolist(), 1: (A > 0).tolist()})
    run = trained(frame, 1)
    assert run.finished.data.spec.target_names == ("1",) and run.evaluate(x=frame, y=1) == run.evaluate(x=frame)
    named = trained(pl.DataFrame({"a": A}), pl.DataFrame({"price": A}))
    assert named.finished.data.spec.target_names == ("price",)
    for y, text in ((7, "y='7': train has no such column"), (pl.DataFrame(), "y has no columns")):
        with pytest.raises(dlrun.UserError, match=text):
            trained(frame, y)


def test_one_name_of_y_serves_all_splits():
    frame, other = pl.DataFrame({"a": A, "price": 2 * A + 1}), pl.DataFrame({"a": A[:30], "price": -A[:30]})
    one, each = (dlrun.train(*WORDS, x=frame, y="price", x_test=other, y_test=y) for y in (None, "price"))
    assert one.evaluate() == each.evaluate() == one.evaluate(x=other)
    with pytest.raises(dlrun.UserError, match="y='price': val has no such column"):
        dlrun.train(*WORDS, x=frame, y="price", x_val=other.drop("price"))
    with pytest.raises(dlrun.UserError, match="x_val without y_val"):
        dlrun.train(*WORDS, x=frame, y=A, x_val=other)


def test_several_targets_beside_a_frame():
    """By the names of columns, as a frame, an array, a tensor or rows; one-hot rows are classes."""
    frame, both = pl.DataFrame({"a": A, "b": A**2}), np.stack([2 * A + 1, A**2 - 3], 1)
    whole = frame.with_columns(p=pl.Series(both[:, 0]), q=pl.Series(both[:, 1]))
    named, unnamed = trained(whole, ["p", "q"]), trained(frame, both)
    assert named.finished.data.spec.target_names == ("p", "q") and named.finished.data.spec.names == ("a", "b")
    assert unnamed.finished.data.spec.target_names == ("target", "target_2")
    wanted = named.evaluate("all")
    for run in (named, unnamed, trained(frame, whole.select("p", "q"))):
        assert run.evaluate("all") == wanted
        for y in (both, torch.tensor(both), both.tolist(), list(both), pl.DataFrame(both)):
            assert run.evaluate(x=frame, y=y) == pytest.approx(wanted)
        assert run.evaluate(x=whole, y=("p", "q")) == pytest.approx(wanted)
    assert named.evaluate(x=whole, y=["q", "p"]) == pytest.approx(wanted), "by their names"
    with pytest.raises(dlrun.UserError, match="x: y has 1 target per row\n  expected 2: p, q"):
        named.evaluate(x=whole, y="p")
    with pytest.raises(dlrun.UserError, match="x has 120 samples, y has 2 targets"):
        trained(whole, ["p", "z"])
    assert set(named.evaluate(x=whole[:2], y=["p", "q"])) == set(wanted)
    called = trained(frame, ["a" if a > 0 else "b" for a in A])
    assert called.finished.data.spec.labels == ("a", "b"), "classes may be called as columns are"
    assert set(called.evaluate(x=frame[:1], y=["a"])) == set(called.evaluate(x=frame[:1], y=["b"]))
    classes = trained(frame, np.eye(3, dtype=int)[np.arange(N) % 3])
    assert classes.finished.data.spec.labels == ("0", "1", "2")


def test_numbers_are_rows_in_the_order_of_the_columns():
    frame = pl.DataFrame({"a": A, "same": [1] * N, "b": A**2, "sure": A > 0})
    run = trained(frame, A)
    rows = frame.select("a", "b", "sure")
    wanted, array = run.outputs(frame), rows.cast(pl.Float64).to_numpy()
    for x in (array, torch.tensor(array), array.tolist()):
        assert np.array_equal(run.outputs(x), wanted)
    first = Series("0", list(rows.row(0)))
    first.index = Series("", rows.columns)
    for x in (array[0], array[0].tolist(), first):
        assert np.allclose(run.outputs(x), wanted[:1]), "one row is summed in another order"
    assert run.evaluate(x=array, y=A)["mse"] == error_of(run, frame, A)
    for x in (array[:, :2], array[0, :2], [[1, 2], [3]], [1.0], array[None]):
        with pytest.raises(dlrun.UserError, match="order of the columns of the run: a, b, sure"):
            run.predict(x)
    single = trained(frame.select("a"), A)
    assert np.array_equal(single.outputs(frame["a"]), single.outputs(A)) and single.outputs([1.0, 2.0]).shape == (2, 1)
    mixed = trained(frame.with_columns(kind=pl.Series(KIND)), A)
    with pytest.raises(dlrun.UserError, match="kind is not of numbers\n  expected a frame or dictionaries with"):
        mixed.predict(np.zeros((2, 4)))
