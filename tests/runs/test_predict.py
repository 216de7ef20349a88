"""`dl-runs predict` on images, texts, rows, codes and episodes; and refusals."""

import csv
import io
import json
import os
import sys

import numpy as np
import polars as pl
import pytest
import torch
from finished_runs import FAMILIES, untrained, write_texts
from PIL import Image

from dlrun.runs import input_rows, inputs
from dlrun.runs.cli import main
from dlrun.spec import Table
from dlrun.train.finished import FinishedRun


@pytest.fixture
def predict(monkeypatch, capsys, tmp_path):
    """Run dl-runs predict; returns (exit code, lines, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["dl-runs", "predict", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each family, trained when first needed."""
    base, made = tmp_path_factory.mktemp("families"), {}
    write_texts(base)

    def get(family):
        if family not in made:
            made[family] = untrained(base / family.replace(" ", "_"), [o.format(data=base) for o in FAMILIES[family]])
        return made[family]

    return get


def write_image(path, shape=(8, 8), seed=0):
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8)).save(path)
    return path


def test_images_are_prepared_as_in_the_run(predict, runs, tmp_path):
    """Labels and probabilities equal the task's own, in the given order, from files, folders and standard input."""
    (tmp_path / "more").mkdir()
    files = [write_image(tmp_path / "a.png"), write_image(tmp_path / "more" / "b.png", seed=1)]
    code, lines, err = predict(runs("classes"), files[0], "more")
    assert (code, err) == (0, "")
    run = FinishedRun(runs("classes"))
    pixels = torch.stack([torch.tensor(np.asarray(Image.open(path)))[None] for path in files])
    wanted = run.task.predict(run.data.encode(pixels))
    for line, row, path in zip(lines, wanted, ("a.png", "more/b.png"), strict=True):
        found = json.loads(line)
        assert found["input"].endswith(path) and found["label"] == str(row.argmax().item())
        assert torch.tensor([found["probabilities"][str(k)] for k in range(10)]).equal(row)
    alone = json.loads(predict(runs("classes"), "a.png")[1][0]) | {"input": "standard input"}
    assert json.loads(predict(runs("classes"), "-", stdin=files[0].read_bytes())[1][0]) == alone
    assert predict(runs("classes"), "-", stdin=b"a.png\nmore/b.png\n")[1] == [
        line.replace(str(tmp_path) + "/", "") for line in lines
    ]


def test_batches_make_no_difference(predict, runs, tmp_path, monkeypatch):
    for i in range(5):
        write_image(tmp_path / f"{i}.png", seed=i)
    whole = predict(runs("classes"), tmp_path)[1]
    one = [line for i in range(5) for line in predict(runs("classes"), tmp_path / f"{i}.png")[1]]
    labels = [[json.loads(line)["label"] for line in lines] for lines in (whole, one)]
    assert len(whole) == 5 and labels[0] == labels[1]


def test_predictions_are_written_as_csv_and_files(predict, runs, tmp_path):
    write_image(tmp_path / "a.png")
    code, lines, _ = predict(runs("classes"), "a.png", "--format", "csv", "--out", "out.csv")
    assert code == 0 and lines == ["1 prediction in out.csv"]
    row = next(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert row["input"] == "a.png" and abs(sum(float(row[f"p({k})"]) for k in range(10)) - 1) < 1e-5
    assert predict(runs("classes"), "a.png", "broken.png", "--out", "half.csv")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out.csv"]


def test_texts_and_rows_are_predicted(predict, runs, tmp_path):
    lines = predict(runs("texts"), "a great film", "-", stdin=b"awful\n\nfine\n")[1]
    assert [json.loads(line)["input"] for line in lines] == ["a great film", "line 1", "line 3"]
    assert json.loads(lines[0])["probabilities"].keys() == {"bad", "good"}
    assert len(predict(runs("texts"), "good film " * 40)[1]) == 1, "longer than a file's name may be"
    (tmp_path / "odd.txt").write_bytes(b"a great\xff film\r\n")
    assert json.loads(predict(runs("texts"), "odd.txt")[1][0])["probabilities"] == json.loads(lines[0])["probabilities"]
    assert predict(runs("texts"), "")[0] == 2
    (tmp_path / "rows.csv").write_text("7,1.5\n-1,2e0\n")
    row = ",".join(["-1.2345"] * 60)
    assert list(input_rows.rows([row], Table(60))) == [(row, [-1.2345] * 60)], "longer than a file's name may be"
    lines = predict(runs("targets"), "rows.csv", "-1,2")[1]
    assert [json.loads(line)["input"] for line in lines] == ["rows.csv:1", "rows.csv:2", "-1,2"]
    outs = [json.loads(line)["output"] for line in lines]
    run = FinishedRun(runs("targets"))
    assert outs[1] == outs[2] == run.task.predict(run.data.encode(np.array([[-1.0, 2.0]]))).item()


def test_texts_in_a_table_are_predicted(predict, runs, tmp_path):
    """Each row is a text; with the columns of the training data, or one column alone."""
    (tmp_path / "tickets.csv").write_text('Text,label\n"a great, lovely film",good\nawful,bad\n')
    (tmp_path / "alone.csv").write_text("a great film\n\nawful\n")
    (tmp_path / "notes.md").write_text("awful")
    (tmp_path / "two.csv").write_text("awful,bad\n")
    lines = [json.loads(line) for line in predict(runs("texts"), "tickets.csv", "alone.csv", "notes.md", "awful")[1]]
    assert [line["input"] for line in lines] == [
        "tickets.csv:2", "tickets.csv:3", "alone.csv:1", "alone.csv:3", "notes.md", "awful",
    ]  # fmt: skip
    assert lines[1]["probabilities"] == lines[3]["probabilities"] == lines[4]["probabilities"]
    code, _, err = predict(runs("texts"), "two.csv")
    assert code == 2 and "two.csv:1: 2 columns, and the first line names none of them text" in err
    assert "gone.csv: there is no such file" in predict(runs("texts"), "gone.csv")[2]


@pytest.mark.parametrize("content, keys, wanted", [
    ("label,message body\nspam,buy now\nham,see you\n", {}, ["buy now", "see you"]),
    ("kind,message body\nspam,buy now\nham,see you\n", {"label_column": "kind"}, ["buy now", "see you"]),
    ("text,spam\nsee you,ham\n", {"header": False}, ["text", "see you"]),
    ("buy now\nsee you\n", {"header": False}, ["buy now", "see you"]),
    ("id,body,note\n1,buy now,x\n", {"text_column": "body"}, ["buy now"]),
])  # fmt: skip
def test_texts_are_found_in_a_table_as_in_training(content, keys, wanted, tmp_path):
    (tmp_path / "mail.csv").write_text(content)
    assert [text for _, text in inputs.texts_as_trained([str(tmp_path / "mail.csv")], keys)] == wanted


@pytest.mark.parametrize("header", ["", "label,message body\n"])
def test_a_table_of_texts_is_predicted_from_as_it_was_trained_on(header, predict, tmp_path):
    rows = [("good", f"lovely film {i}") if i % 2 else ("bad", f"awful film {i}") for i in range(40)]
    lines = [",".join(row if header else row[::-1]) + "\n" for row in rows]
    (tmp_path / "mail.csv").write_text(header + "".join(lines))
    keys = ["data.root=mail.csv", f"data.header={str(bool(header)).lower()}", "data.vocab=50"]
    run = untrained(tmp_path / "run", ["data=text_folder", "model=bag_of_words", f"data_dir={tmp_path}", *keys])
    code, out, err = predict(run, "mail.csv")
    assert code == 0 and len(out) == 40, err
    assert json.loads(out[0])["probabilities"] != json.loads(out[1])["probabilities"], "it reads the texts"


def test_binary_files_are_refused_as_texts(predict, runs, tmp_path):
    (tmp_path / "h.html").write_text("<p>awful</p>")
    (tmp_path / "scan.PDF").write_bytes(b"%PDF-1.7")
    (tmp_path / "notes").write_bytes(b"awful\0\1")
    for name in ("h.html", "scan.PDF", "notes"):
        code, lines, err = predict(runs("texts"), name)
        assert (code, lines) == (2, []) and f"{name} is not plain text\n  expected a .txt file" in err
    assert "gone.json: there is no such file" in predict(runs("texts"), "gone.json")[2]


def test_texts_in_json_are_predicted_as_those_of_a_csv(predict, runs, tmp_path):
    (tmp_path / "a.json").write_text('[{"id": 1, "text": "awful"}, {"text": "a good film"}]')
    (tmp_path / "a.csv").write_text("id,text\n1,awful\n,a good film\n")
    found = [[json.loads(line) for line in predict(runs("texts"), name)[1]] for name in ("a.json", "a.csv")]
    numbers = [[{key: value for key, value in each.items() if key != "input"} for each in lines] for lines in found]
    assert len(found[0]) == 2 and numbers[0] == numbers[1]
    (tmp_path / "b.json").write_text('{"a": [1]}')
    code, lines, err = predict(runs("texts"), "b.json")
    assert (code, lines) == (2, []) and "b.json is an object with lists or objects in it\n  expected a list" in err


@pytest.mark.parametrize("content, kept", [
    ("a\n1\n\n3\n", [1, None, 3]), ("a\n1\n\n", [1, None]), ('a\n""\nNA\n2\n', [None, None, 2]),
    ("a,b\n1,2\n,\n3,4\n", [1, None, 3]), ("a,b\n1,2\n\n3,4\n\n", [1, 3]), ("b,a\n2,1\n,\n\n4,3\n", [1, None, 3]),
])  # fmt: skip
def test_a_row_without_values_is_predicted(content, kept, predict, tmp_path):
    """So that predictions can be matched to rows; blank lines are rows only of a table of one column."""
    columns = {"a": [None if i % 5 == 0 else i / 7 for i in range(60)], "b": [i % 9 * 2.5 for i in range(60)]}
    train = pl.DataFrame(columns if "b" in content else {"a": columns["a"]})
    train.with_columns(y=pl.Series(i % 7 / 3 for i in range(60))).write_csv(tmp_path / "t.csv")
    run = untrained(tmp_path / "run", ["data=table", "data.file=t.csv", "data.target=y", "model.hidden=[4]"])
    (tmp_path / "new.csv").write_text(content)
    code, found, err = predict(run, "new.csv")
    assert code == 0, err
    rows = [json.loads(line) for line in found]
    assert [row["a"] and float(row["a"]) for row in rows] == kept
    assert [row["input"] for row in rows] == [f"row {i}" for i in range(1, len(kept) + 1)]


def test_columns_by_name(predict, tmp_path):
    """A CSV with a header may have its columns in any order, and others between them."""
    folder = untrained(tmp_path / "run", ["data=moons", "model.hidden=[4]", "data.spec.names=[a,b]"])
    (tmp_path / "x.csv").write_text("b,id,a\n2,9,1\n")
    (tmp_path / "y.csv").write_text("1,2\n")
    by_name, by_place = (json.loads(predict(folder, name)[1][0]) for name in ("x.csv", "y.csv"))
    assert by_name["probabilities"] == by_place["probabilities"]
    (tmp_path / "z.csv").write_text("b,c\n2,1\n")
    assert "z.csv:1: there is no column a\n  expected a, b" in predict(folder, "z.csv")[2]


def test_generative_runs_give_samples_codes_and_reconstructions(predict, runs, tmp_path):
    code, lines, _ = predict(runs("vae"), "--samples", "3", "--seed", "1", "--out", "made")
    assert code == 0 and len(list((tmp_path / "made").glob("*.png"))) == 3
    again = predict(runs("vae"), "--samples", "3", "--seed", "1", "--out", "again")[1]
    pixels = [[np.asarray(Image.open(json.loads(line)["image"])) for line in each] for each in (lines, again)]
    assert np.array_equal(*pixels) and pixels[0][0].shape == (8, 8)
    (tmp_path / "z.csv").write_text(",".join("0" * 20) + "\n")
    line = json.loads(predict(runs("vae"), "--latent", "z.csv")[1][0])
    run = FinishedRun(runs("vae"))
    wanted = (run.task.predict(torch.zeros(1, 20))[0, 0] * 255).round().byte().numpy()
    assert np.array_equal(np.asarray(Image.open(line["image"])), wanted)
    write_image(tmp_path / "a.png")
    assert np.asarray(Image.open(json.loads(predict(runs("autoencoder"), "a.png")[1][0])["image"])).shape == (8, 8)
    rows = [json.loads(line) for line in predict(runs("gan"), "--samples", "2")[1]]
    assert all({"x1", "x2", "seed"} <= row.keys() for row in rows)


def test_a_mask_for_each_image(predict, runs, tmp_path):
    """Images of the same name in several folders get different files, also if such a name is taken."""
    for i, name in enumerate(("d1/x.png", "d2/x.png", "x_2.png", "d3/X.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, (16, 16, 3), seed=i)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "x.part").write_text("mine")
    code, lines, err = predict(runs("masks"), "d1/x.png", "d2/x.png", "x_2.png", "d3/X.png", "--out", "made")
    files = [json.loads(line)["image"] for line in lines]
    assert code == 0 and files == [f"made/{name}.png" for name in ("x", "x_2", "x_2_2", "X_3")], err
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(
        ["x.part", *(file.removeprefix("made/") for file in files)]
    )


def test_policies_play_episodes(predict, runs):
    lines = predict(runs("actor"), "--episodes", "3", "--seed", "5")[1]
    assert [json.loads(line).keys() for line in lines] == [{"episode", "return", "length"}] * 3
    assert lines == predict(runs("actor"), "--episodes", "3", "--seed", "5")[1]
    assert len(predict(runs("values"), "--episodes", "1")[1]) == 1


REFUSED = {
    "size": ("classes", ["big.png"], "big.png is 9x8 with 1 channel, but the run takes 8x8 with 1 channel\n  expected"),
    "channels": ("classes", ["rgb.png"], "rgb.png is 8x8 with 3 channels, but the run takes 8x8 with 1 channel"),
    "damaged": ("classes", ["cut.png"], "an intact image: .bmp, .gif, .jpeg, .jpg, .png, .tif, "),
    "no image": ("classes", ["notes.txt"], "notes.txt cannot be read as an image"),
    "no file": ("classes", ["nothing.png"], "nothing.png: there is no such file\n  expected an image"),
    "long name": ("classes", ["a" * 300], f"{'a' * 300}: there is no such file\n  expected an image"),
    "out is a folder": ("classes", ["a.png", "--out", "."], "cannot write .: it is a folder\n  expected a file name"),
    "empty folder": ("classes", ["empty"], "empty has no images\n  expected files of"),
    "nothing": ("classes", [], "no inputs to predict from\n  this run (mlp) takes images"),
    "wrong way": ("classes", ["--episodes", "3"], "--episodes N: this run (mlp) does not take them"),
    "two ways": ("vae", ["a.png", "--samples", "3"], "several kinds of inputs"),
    "many samples": ("vae", ["--samples", "9" * 20], "expected an integer of at most 1,000,000"),
    "a large seed": (
        "vae",
        ["--samples", "1", "--seed", "9" * 20],
        "9999: expected an integer of at most",
    ),
    "no samples": ("vae", ["--samples", "0"], "--samples 0: expected an integer >= 1"),
    "short code": ("vae", ["--latent", "row.csv"], "row.csv:1: 3 numbers\n  expected 20 numbers"),
    "short row": ("targets", ["1,2,3"], "1,2,3: 3 numbers\n  expected 2 numbers"),
    "no rows": (
        "targets",
        ["empty.csv", "--out", "out.jsonl"],
        "empty.csv: no inputs\n  expected rows of numbers",
    ),
    "no number": ("targets", ["bad.csv"], "bad.csv:2: 'x' is not a finite number\n  expected 2 numbers"),
    "no row": ("targets", ["nothing.csv"], "nothing.csv: neither a file nor a row of numbers"),
    "no text file": ("texts", ["nothing.txt"], "nothing.txt: there is no such file\n  expected a file"),
    "format": ("classes", ["a.png", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_requests_are_refused(case, predict, runs, tmp_path):
    family, arguments, message = REFUSED[case]
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "big.png", (8, 9))
    write_image(tmp_path / "rgb.png", (8, 8, 3))
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "empty").mkdir()
    (tmp_path / "row.csv").write_text("1,2,3\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bad.csv").write_text("1,2\n3,x\n")
    before = sorted(tmp_path.rglob("*"))
    code, lines, err = predict(runs(family), *arguments)
    assert code == 2 and not lines and message in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("family", ["classes", "texts", "targets"])
def test_empty_standard_input_is_refused(family, predict, runs):
    assert predict(runs(family), "-", stdin=b"")[:2] == (2, [])


def test_unreadable_files_of_a_folder_are_skipped(predict, runs, tmp_path):
    """The skipped files are named; files that systems leave there are ignored."""
    for name in ("a.png", "b.PNG", "sub/c.png", "sub/._c.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "some" / name)
    (tmp_path / "some" / "aa.png").write_bytes((tmp_path / "some" / "a.png").read_bytes()[:60])
    os.mkfifo(tmp_path / "some" / "f.png")
    code, lines, err = predict(runs("classes"), "some")
    assert code == 0 and [json.loads(line)["input"] for line in lines] == ["some/a.png", "some/b.PNG", "some/sub/c.png"]
    message = [line.partition(" cannot be read")[0] for line in err.splitlines()]
    assert message == [f"dl-runs: skipped: some/{name}" for name in ("aa.png", "f.png")]
    assert predict(runs("classes"), "some/f.png")[0] == 2
    (tmp_path / "texts").mkdir()
    for name in ("a.TXT", "._a.txt"):
        (tmp_path / "texts" / name).write_text("a great film")
    os.mkfifo(tmp_path / "texts" / "f.txt")
    code, lines, err = predict(runs("texts"), "texts")
    assert code == 0 and [json.loads(line)["input"] for line in lines] == ["texts/a.TXT"]
    assert err.startswith("dl-runs: skipped: texts/f.txt cannot be read: a FIFO")


def test_images_with_more_than_8_bits_are_predicted(predict, runs, tmp_path):
    """A run on 8-bit images has no levels: those of the image itself are used."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels.astype(np.uint16)).save(tmp_path / "b.png")
    Image.fromarray((pixels / 255).astype(np.float32)).save(tmp_path / "c.tif")
    first, *others = (json.loads(line) | {"input": ""} for line in predict(runs("classes"), ".")[1])
    assert others == [first, first]


def test_numbers_that_are_too_large_are_refused(predict, runs, tmp_path):
    """Numbers beyond float32 are refused, and outputs for numbers near its limit are valid JSON."""
    assert predict(runs("targets"), "1e39,1")[0] == 2
    assert "'1e39' is not a finite number" in predict(runs("targets"), "-", stdin=b"1,2\n1e39,1\n")[2]
    code, lines, _ = predict(runs("targets"), "3e38,-3e38", "3e38,3e38")
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)
    assert code == 0 and len(lines) == 2


def test_fit_accepts_any_image(predict, runs, tmp_path):
    write_image(tmp_path / "rgb.png", (40, 30, 3))
    code, lines, _ = predict(runs("classes"), "rgb.png", "--fit")
    assert code == 0 and len(lines) == 1


def test_a_run_predicts_without_its_data(predict, tmp_path):
    """Vocabulary and means come from the checkpoint: the folder of a run is enough."""
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES["texts"]])
    before = predict(folder, "a great film")[1]
    (tmp_path / "texts.csv").unlink()
    assert predict(folder, "a great film")[1] == before
