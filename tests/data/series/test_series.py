"""Series: the windows and their content, values fitted on the train split only, forecasts, refusals."""

import csv
import json
from pathlib import Path
from signal import SIGTERM

import numpy as np
import pytest
import torch
from finished_runs import trained
from runs import assert_same, compose, train
from toys import CPU, make_task

from dlrun.config.build import build
from dlrun.data.series.naive import season_of
from dlrun.data.series.windows import Windowing, starts_of
from dlrun.errors import UserError
from dlrun.models.columns import SinceLast
from dlrun.models.linear import linear
from dlrun.models.tcn import tcn
from dlrun.runs.cli import main
from dlrun.tasks.losses.balance import class_counts
from dlrun.train.finished import FinishedRun

WEATHER = ["data.target=t", "data.window=5", "data.horizon=3", "data.time=hour"]


def write(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def weather(steps: int = 100) -> list[dict]:
    """A wave of 12 hours that rises slowly, a second number and a category."""
    random = np.random.RandomState(0)
    wave = 10 * np.sin(np.arange(steps) * np.pi / 6) + 0.1 * np.arange(steps)
    return [
        {"hour": i, "t": round(wave[i], 3), "wind": round(random.rand(), 3), "sky": ["sun", "rain"][i // 7 % 2]}
        for i in range(steps)
    ]


def loaded(path: Path, *keys: str):
    data = build(compose("data=series", f"data.file={path}", "model=linear", *keys)[0]["data"])
    data.load(CPU)
    return data


def every(data, split: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(x.numpy(), y.numpy()) for x, y in data.batches(split)]
    return tuple(np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))


# Windows


def by_hand(splits: list[int], breaks: list[bool], missing: list[bool], form: Windowing) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for start in range(len(splits) - form.span + 1):
        inside = range(start, start + form.span)
        run = start
        while run > 0 and not breaks[run] and splits[run] == splits[run - 1]:
            run -= 1
        whole = all(splits[i] == splits[start] for i in inside) and not any(breaks[i] for i in inside[1:])
        if whole and (start - run) % form.stride == 0 and not any(missing[start + i] for i in form.targets):
            found.setdefault(splits[start], []).append(start)
    return found


@pytest.mark.parametrize("form", [
    Windowing(3, 2, True, 1), Windowing(3, 0, False, 1), Windowing(1, 1, True, 2), Windowing(4, 3, False, 3),
])  # fmt: skip
def test_no_window_crosses_a_split_or_a_gap(form):
    random = np.random.RandomState(1)
    for _ in range(20):
        splits = np.sort(random.randint(3, size=60))
        breaks, missing = random.rand(60) < 0.06, random.rand(60) < 0.05
        breaks[0] = True
        found, left_out = starts_of(splits, breaks, missing, form)
        expected = by_hand(splits.tolist(), breaks.tolist(), missing.tolist(), form)
        assert {split: starts.tolist() for split, starts in found.items() if len(starts)} == expected
        whole, _ = starts_of(splits, breaks, np.zeros(60, bool), form)
        assert left_out == sum(map(len, whole.values())) - sum(map(len, found.values()))


def test_windows_are_gathered_from_the_rows(tmp_path):
    """Inputs in order, then the next values in their own unit; all is stored once."""
    rows = weather()
    data = loaded(write(tmp_path / "a.csv", rows), *WEATHER)
    assert str(data.spec) == "Series(length=5, features=3, targets=3)" and data.spec.levels == (2,)
    assert data.spec.target_names == ("t +1", "t +2", "t +3") and data.spec.names == ("t", "wind", "sky")
    values = np.array([row["t"] for row in rows], np.float32)
    for split, (first, end) in {"train": (0, 60), "val": (60, 80), "test": (80, 100)}.items():
        starts = data.resident.rows[split].numpy()
        assert starts.tolist() == list(range(first, end - 7))
    x, y = every(data, "test")
    assert np.array_equal(y, np.stack([values[i + 5 : i + 8] for i in range(80, 93)]))
    mean, std = values[:60].astype(np.float64).mean(), values[:60].astype(np.float64).std(ddof=1)
    assert np.allclose(x[:, :, 0], np.stack([(values[i : i + 5] - mean) / std for i in range(80, 93)]), atol=1e-5)
    assert data.resident.x["train_arrays"].shape == (100, 3) and data.resident.y["train_arrays"].shape == (100, 1)


def test_statistics_come_from_the_train_split_only(tmp_path):
    rows = weather()
    changed = [row | {"t": -5 * row["t"], "wind": 100, "sky": "fog"} if i >= 60 else row for i, row in enumerate(rows)]
    one, other = (
        loaded(write(tmp_path / f"{i}.csv", each), *WEATHER).fitted() for i, each in enumerate((rows, changed))
    )
    assert one == other


def test_rows_are_put_in_order_and_gaps_break_windows(tmp_path):
    rows = [row for row in weather() if row["hour"] not in (20, 21, 22)]
    data = loaded(write(tmp_path / "a.csv", rows[::-1]), *WEATHER)
    assert data.header_lines["order"] == "rows are sorted by hour"
    assert data.header_lines["gaps"].startswith("1 gap in hour: no window crosses one")
    ordered = loaded(write(tmp_path / "b.csv", rows), *WEATHER)
    assert all(np.array_equal(a, b) for a, b in zip(every(data, "test"), every(ordered, "test"), strict=True))
    skipping = loaded(tmp_path / "b.csv", *WEATHER, "data.gaps=skip")
    assert skipping.size("train") == ordered.size("train") + 7


def test_day_and_month_of_the_time_may_be_chosen(tmp_path):
    """Twelve days at most in a month: 2/1 comes after 1/2 with the month first, before it with the day first."""
    days = [f"{1 + i // 10:02d}/{1 + i % 10:02d}/2024" for i in range(100)]
    rows = [row | {"date": day} for row, day in zip(weather(), days, strict=True)]
    keys = ["data.target=t", "data.time=date", "data.gaps=skip", "data.window=4"]
    data = loaded(write(tmp_path / "x.csv", rows), *keys)
    assert (
        "date is read as %m/%d/%Y, but %d/%m/%Y fits" in data.header_lines["dates"] and "order" not in data.header_lines
    )
    chosen = loaded(tmp_path / "x.csv", *keys, "++data.types={date: '%d/%m/%Y'}")
    assert "dates" not in chosen.header_lines and "order" in chosen.header_lines


def test_several_series_are_split_each_by_time(tmp_path):
    rows = [row | {"town": town} for town in ("A", "B") for row in weather(40)]
    data = loaded(write(tmp_path / "a.csv", rows), *WEATHER, "data.series=town")
    assert data.resident.rows["train"].tolist() == [*range(0, 17), *range(40, 57)]
    assert data.resident.rows["test"].tolist() == [32, 72] and "town" not in data.spec.names


def test_whole_series_are_classified(tmp_path):
    """Each is in one split, with the class of its rows."""
    rows = [
        {"id": f"s{i}", "x": np.round(np.sin(k * (1 + i % 2)), 3), "kind": ["slow", "fast"][i % 2]}
        for i in range(30)
        for k in range(8)
    ]
    path = write(tmp_path / "a.csv", rows)
    data = loaded(path, "data.target=kind", "data.series=id", "data.window=null")
    assert str(data.spec) == "Series(length=8, features=1, classes=2)" and data.spec.labels == ("fast", "slow")
    starts = [data.resident.rows[split].tolist() for split in ("train", "val", "test")]
    assert [len(each) for each in starts] == [18, 6, 6] and sorted(sum(starts, [])) == list(range(0, 240, 8))
    x, y = every(data, "val")
    assert y.tolist() == [1 - int(start // 8 % 2) for start in starts[1]] and x.shape == (6, 8, 1)
    ragged = write(tmp_path / "b.csv", rows[:-2])
    with pytest.raises(UserError, match=r"the series have 6 \(s29\) to 8 steps .*\n  expected one length"):
        loaded(ragged, "data.target=kind", "data.series=id", "data.window=null")


def test_classes_are_counted_and_drawn_by_the_windows(tmp_path):
    """The class of a window is that of its last step; the first rows have none."""
    rows = [row | {"storm": ["no", "yes"][i % 11 == 10] if i > 4 else ""} for i, row in enumerate(weather(300))]
    keys = ["data.target=storm", "data.window=5", "data.sampler=balanced"]
    data = loaded(write(tmp_path / "a.csv", rows), *keys)
    stored = torch.bincount(data.targets("train"))
    assert stored.tolist() == class_counts(data, 2) and stored[1] * 5 < stored[0]
    y = torch.cat([y for _, y in data.batches("train", 0, 1)])
    assert torch.bincount(y).tolist() == pytest.approx([len(y) / 2] * 2, abs=0.5)


def test_whole_series_are_in_folds(tmp_path):
    rows = [{"id": f"s{i}", "x": i + k / 10, "kind": ["slow", "fast"][i % 2]} for i in range(20) for k in range(4)]
    path = write(tmp_path / "a.csv", rows)
    held = []
    for fold in range(3):
        keys = ["data.target=kind", "data.series=id", "data.window=null", "data.folds=3", f"data.fold={fold}"]
        data = loaded(path, *keys)
        assert not set(data.origins("val")) & set(data.origins("train"))
        held += data.origins("val")
    assert len(set(held)) == len(held) == 16 and {f"s{i}" for i in range(20)} == {*held, *data.origins("test")}
    windows = loaded(path, "data.target=kind", "data.series=id", "data.window=3", "data.folds=3")
    origins = windows.origins("val")
    assert {origin.partition(",")[0] for origin in origins} == set(held[: len(origins) // 2])
    assert origins[0].endswith(", step 0") and origins[1].endswith(", step 1")
    with pytest.raises(UserError, match="data.folds=3: these series are split by time.*\n  expected data.folds=0"):
        loaded(path, "data.target=x", "data.series=id", "data.window=1", "data.horizon=1", "data.folds=3")


# Forecasts without learning


def test_naive_forecasts_are_the_last_value_and_that_of_a_season_ago(tmp_path):
    """A repeated pattern: the season is found and is exact, the error of the last value follows from the pattern."""
    pattern = [0.0, 3.0, 1.0, 7.0, 2.0, 5.0]
    rows = [{"t": pattern[i % 6]} for i in range(300)]
    data = loaded(write(tmp_path / "a.csv", rows), "data.target=t", "data.window=12", "data.learn=regression")
    found = data.baselines("test")
    assert data.fitted()["season"] == 6 and found["season of 6"] == {"mae": 0.0, "mse": 0.0}
    starts = data.resident.rows["test"].numpy()
    steps = [abs(pattern[(i + 12) % 6] - pattern[(i + 11) % 6]) for i in starts]
    assert found["last value"] == pytest.approx({"mae": np.mean(steps), "mse": np.mean(np.square(steps))})
    assert season_of(np.random.RandomState(0).randn(500), 20) == 0, "noise has none"


@pytest.mark.parametrize("left_out", [lambda i: 100 <= i < 105 or 150 <= i < 161, lambda i: None])
def test_gaps_and_missing_values_do_not_shift_the_season(tmp_path, left_out):
    """The wave has 12 hours, of which rows are left out, or a tenth of the values."""
    rows = [row for i, row in enumerate(weather(300)) if not left_out(i)]
    if left_out(0) is None:
        for i in np.random.RandomState(1).permutation(len(rows))[: len(rows) // 10]:
            rows[i]["t"] = ""
    data = loaded(write(tmp_path / "a.csv", rows), *WEATHER[:1], "data.window=16", *WEATHER[2:])
    assert data.fitted()["season"] == 12


def test_a_network_with_zero_output_forecasts_the_last_value(tmp_path):
    data = loaded(write(tmp_path / "a.csv", weather()), *WEATHER)
    net = linear(data.spec, init="zeros", bias=True)
    assert isinstance(net, SinceLast)
    found = make_task(net, data.spec).evaluate(data, "test")
    own = data.baselines("test")["last value"]
    assert {name: found[name] for name in own} == pytest.approx(own, rel=1e-4)


# Networks


def test_an_output_depends_on_no_later_step():
    """Steps up to the receptive field matter, later ones and earlier ones do not."""
    spec = loaded_spec(length=20)
    net = tcn(spec, channels=6, blocks=2, kernel_size=3, dropout=0.0).double()
    x = torch.randn(1, 20, 1, dtype=torch.float64, requires_grad=True)
    net.blocks(net.first(x).transpose(1, 2))[0, :, 15].sum().backward()
    seen = x.grad[0, :, 0].abs() > 0
    assert not seen[16:].any() and not seen[: 16 - 13].any() and seen[15]  # 1 + 2 * 2 * (2^2 - 1) = 13 steps


def loaded_spec(length: int):
    from dlrun.spec import Series

    return Series(length, 1, targets=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    path = write(folder / "weather.csv", weather(200))
    keys = ["data=series", f"data.file={path}", "model=linear", *WEATHER, "optimizer.lr=0.02", "trainer.epochs=5"]
    return trained(folder / "run", keys)


@pytest.mark.thorough
def test_a_run_on_a_series_resumes_to_the_bit(tmp_path):
    path = write(tmp_path / "a.csv", weather())
    keys = ["trainer.epochs=2", "trainer.device=cpu", "trainer.checkpoint_gap=0", "data.batch_size=8"]
    config = compose("data=series", "model=gru", "model.units=4", f"data.file={path}", *WEATHER, *keys)
    train(tmp_path / "a", config, finish=True)
    for step in (2, 9):
        train(tmp_path / "b", config, resumed=step > 2, signals={step: SIGTERM})
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_a_run_forecasts_the_values_after_a_file(run, tmp_path, monkeypatch, capsys):
    """The record equals the network's output for the last window; the targets' columns have their names."""
    rows = weather(200)[:150]
    path = write(tmp_path / "new.csv", rows)
    out = command(monkeypatch, capsys, "predict", run, path)
    record = json.loads(out)
    assert list(record) == ["input", "output t +1", "output t +2", "output t +3"]
    rebuilt = FinishedRun(run)
    ((_, window),) = rebuilt.data.read(path)
    expected = rebuilt.task.predict(window[None])[0].tolist()
    assert [record[f"output t +{i}"] for i in (1, 2, 3)] == pytest.approx(expected, rel=1e-5)
    whole = loaded(run.parent / "weather.csv", *WEATHER)  # encoded alike, whatever else is in the file
    assert torch.allclose(window, whole.resident.x["train_arrays"][145:150], atol=1e-6)
    own = json.loads(command(monkeypatch, capsys, "evaluate", run, "--json"))["metrics"]
    test = write(tmp_path / "test.csv", weather(200)[160:])
    found = json.loads(command(monkeypatch, capsys, "evaluate", run, "--on", test, "--json"))["metrics"]
    assert found == pytest.approx(own, rel=1e-5)
    assert json.loads((run / "summary.json").read_text())["test"]["baselines"].keys() == {"last value"}


@pytest.mark.parametrize("labels", ["True False", "1.0 3.0"])
def test_classes_of_another_file_are_read_as_in_the_run(labels, tmp_path):
    rows = [row | {"sky": labels.split()[i % 3 == 0]} for i, row in enumerate(weather(100))]
    keys = ["data.target=sky", "data.time=hour", "data.window=5", "data.learn=classification"]
    data = loaded(write(tmp_path / "a.csv", rows), *keys)
    again = build(compose("data=series", "model=linear", f"data.file={tmp_path}/a.csv", *keys)[0]["data"])
    again.load_like(data.fitted(), CPU)
    assert torch.equal(again.targets("test")[:10], torch.cat([data.targets("train")])[:10])


def command(monkeypatch, capsys, *arguments: object) -> str:
    monkeypatch.setattr("sys.argv", ["dl-runs", *map(str, arguments)])
    main()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "message"), [(weather(4), "has 4 rows"), (weather(9)[:6] + weather(9)[8:], "has a gap")]
)
def test_too_short_a_series_is_not_predicted_from(run, rows, message, tmp_path):
    with pytest.raises(UserError, match=f"{message}.*; a window has 5 steps\n  expected at least 5 rows at the end"):
        FinishedRun(run).data.read(write(tmp_path / "short.csv", rows))


@pytest.mark.parametrize(("change", "keys", "message"), [
    ({}, ["data.horizon=30"], "data.horizon=30 .*at most 20 rows of val follow each other\n  expected 35"),
    ({}, ["data.window=100"], "data.window=100 .*at most 60 rows of train .*choose a smaller window"),
    ({}, ["data.window=400"], "data.window=400 .*at most 60 rows of train .*choose a smaller window"),
    ({}, ["data.target=temp"], "data.target=temp: .* has no such column"),
    ({}, ["data.time=sky"], "data.time=sky: its values are neither dates nor numbers, such as 'sun'"),
    ({3: {"hour": 2}}, [], "line 5: the time hour is that of another row"),
    ({3: {"hour": ""}}, [], "line 5: no value of data.time=hour"),
    ({3: {"t": "warm"}}, ["data.learn=regression"], "line 5: t is 'warm'\n  expected a number"),
    ({0: {"t": ""}, 1: {"t": ""}, 9: {"t": "warm"}}, ["data.learn=regression"], "line 11: t is 'warm'"),
    ({3: {"wind": "inf"}}, [], "line 5: wind is 'inf'\n  expected a finite number"),
    ({i: {"t": 1} for i in range(100)}, [], "the target t is always 1"),
    ({}, ["data.window=null"], "nothing follows a whole series"),
    ({}, ["data.window=null", "data.horizon=0"], "takes whole series, and there is one"),
])  # fmt: skip
def test_invalid_series_are_refused(tmp_path, change, keys, message):
    rows = [row | change.get(i, {}) for i, row in enumerate(weather())]
    with pytest.raises(UserError, match="(?s)" + message):
        loaded(write(tmp_path / "a.csv", rows), *WEATHER, *keys)
