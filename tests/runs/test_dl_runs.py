"""dl-runs and dl-data: lists, comparisons, reports, exact metrics, and refusals."""

import json
import os
import re
import sys
from time import perf_counter

import pytest
import torch
from finished_runs import FAMILIES, trained, untrained, write_config, write_texts
from PIL import Image
from runs import write_mnist

from dlrun.errors import UserError
from dlrun.output.checkpoint import load, save
from dlrun.output.rows import epoch_rows
from dlrun.runs import cli, data_cli, page
from dlrun.runs.data_config import other_config
from dlrun.runs.report import SHOWN
from dlrun.sweep.job import Job
from dlrun.sweep.outcomes import record
from dlrun.sweep.state import State


@pytest.fixture
def dl_runs(monkeypatch, capsys):
    """Run the command; returns (exit code, stdout, stderr)."""

    def run(*arguments, main=cli.main):
        monkeypatch.setattr(sys, "argv", ["dl-runs", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Four runs: an mlp, a linear model, and a sweep of two."""
    base = tmp_path_factory.mktemp("outputs")
    trained(base / "day" / "1_mlp", draws=True, overrides=["data=digits", "model.hidden=[16]", "optimizer.lr=0.01"])
    trained(base / "day" / "2_linear", ["data=digits", "model=linear"])
    for seed in (0, 1):
        trained(base / "day" / "3_sweep" / str(seed), ["data=moons", "model.hidden=[8]", f"seed={seed}"])
    (base / "day" / "3_sweep" / "best").symlink_to("1", target_is_directory=True)
    save_sweep(base / "day" / "3_sweep")
    return base


def save_sweep(folder):
    """sweep.json after a kill: job 0 had ended, job 1 ended unnoticed, job 2 had just begun."""
    jobs = [Job(seed, [f"seed={seed}"], "running", worker="host-1-1") for seed in (0, 1, 2)]
    record(jobs[0], folder / "0", 0)
    command = {"command": [], "flags": [], "arguments": ["seed=0,1,2"], "configs": ""}
    State.new(folder, command, jobs, 3, []).save()


def stub(folder, at, **facts):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("[]\n")
    os.utime(folder / ".hydra" / "overrides.yaml", (at, at))
    if facts:
        (folder / "summary.json").write_text(json.dumps(facts))


LIMITS = (["--reverse"], ["--reverse", "--limit", "2"], ["--limit", "2"])


def test_runs_are_listed(dl_runs, outputs):
    above, _, *lines = dl_runs("list", "--output-dir", outputs)[1].splitlines()
    assert above == "all runs with status=finished"
    assert lines[0].split() == ["run", "data", "model", "val/acc", "test/acc", "seconds"]
    assert [line.split()[2] for line in lines[2:]] == ["mlp", "linear", "mlp", "mlp"]
    assert len(set(map(len, lines[2:]))) == 1, "the columns are in line"
    where = ["--output-dir", str(outputs)]
    one = dl_runs("list", "model=m*", "data=digits", *where)[1].splitlines()
    assert len(one) == 3 and one[0].split()[:4] == ["run", "status", "data", "model"]
    assert "1_mlp" in dl_runs("list", "optimizer.lr=0.01", *where)[1].splitlines()[-1]
    found = [dl_runs("list", "--sort", "seconds", "--json", *more, *where)[1].splitlines() for more in LIMITS]
    assert found[1] == found[0][:2] and found[2] == found[1][::-1]
    accuracies = [float(line.split()[4]) for line in dl_runs("list", "--sort", "test/acc", *where)[1].splitlines()[4:]]
    assert accuracies == sorted(accuracies)
    rows = [json.loads(line) for line in dl_runs("list", "seed=1", "--json", *where)[1].splitlines()]
    assert len(rows) == 1 and rows[0]["run"].endswith("3_sweep/1") and rows[0]["metrics"]["test/acc"] == rows[0]["test"]


def test_runs_in_any_state_are_listed(dl_runs, tmp_path):
    """Killed, damaged and unfinished runs have their own status."""
    stub(tmp_path / "day" / "a", 1, status="running", data="mnist", model="mlp")
    stub(tmp_path / "day" / "b", 2)
    stub(tmp_path / "day" / "c", 3, status="diverged", best={"metric": "val/acc", "value": None}, seconds=None)
    stub(tmp_path / "day" / "d", 4, status="running")
    (tmp_path / "day" / "b" / "summary.json").write_text("{ half")
    import fcntl

    with open(tmp_path / "day" / "d" / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lines = dl_runs("list", "--output-dir", tmp_path)[1].splitlines()[2:]
    assert [line.split()[1:] for line in lines] == [
        ["killed", "mnist", "mlp", "-", "-", "-"],
        ["no", "summary", "-", "-", "-", "-", "-"],
        ["diverged", "-", "-", "-", "-", "-"],
        ["running", "-", "-", "-", "-", "-"],
    ]
    for name in "ab":
        stub(tmp_path / "odd" / "day" / name, 5, status="diverged", data=["no", "name"])
    assert "all runs with status=diverged data=['no', 'name']\n" in dl_runs("list", "--output-dir", tmp_path / "odd")[1]
    code, _, err = dl_runs("show", tmp_path / "day" / "b")
    assert code == 2 and "this folder is not a run's (it has no .hydra/config.yaml)" in err


def test_a_thousand_runs_are_listed_within_a_second(tmp_path):
    """Measured against plain reading of the same files, so that a busy machine does not matter."""
    from dlrun.runs.listing import as_table, list_runs

    facts = {"status": "finished", "data": "mnist", "model": "mlp", "seconds": 1.0, "test": {"test/acc": 0.5}}
    for i in range(1000):
        folder = tmp_path / f"day{i % 10}" / str(i)
        stub(folder, i, **facts, best={"metric": "val/acc", "value": i / 1000, "epoch": 1})
        (folder / "checkpoints").mkdir()
    started = perf_counter()
    for i in range(1000):
        json.loads((tmp_path / f"day{i % 10}" / str(i) / "summary.json").read_text())
    bare, started = perf_counter() - started, perf_counter()
    text = as_table(list_runs(tmp_path, ["model=mlp"], "best", False, None), 1000)
    seconds = perf_counter() - started
    assert text.startswith("all runs with status=finished data=mnist model=mlp\n\nrun  ")
    assert len(text.splitlines()) == 1004 and text.splitlines()[-1].split()[-3] == "0.9990"
    assert seconds < max(0.8, 15 * bare), (seconds, bare)


def test_a_run_is_shown(dl_runs, outputs):
    out = dl_runs("show", outputs / "day" / "1_mlp")[1]
    summary = json.loads((outputs / "day" / "1_mlp" / "summary.json").read_text())
    for part in (
        "status      finished",
        "optimizer.lr=0.01",
        "val/acc",
        f"test/acc {summary['test']['test/acc']!r}",
    ):
        assert part in out
    assert json.loads(dl_runs("show", "last", "--json", "--output-dir", outputs)[1])["data"] == "moons"
    assert "hidden:\n  - 16" in dl_runs("show", "day/1_mlp", "--config", "--output-dir", outputs)[1]


QUICK = ("classes", "texts", "vae", "actor")


@pytest.mark.thorough(but=["classes", "texts"])
@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_evaluate_reproduces_the_metrics_of_the_run(family, dl_runs, tmp_path):
    """The metrics of summary.json, to the last digit, from the folder alone."""
    write_texts(tmp_path)
    folder = trained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES[family]])
    code, out, err = dl_runs("evaluate", folder)
    assert code == 0 and out.endswith("reproduced exactly\n"), out + err
    own = json.loads((folder / "summary.json").read_text())["test"]
    found = json.loads(dl_runs("evaluate", folder, "--json")[1])["metrics"]
    assert found and all(own[f"test/{name}"] == value for name, value in found.items())
    code, out, err = dl_runs("evaluate", folder, "split=val")
    assert code == 0 and "summary.json" not in out


def test_evaluate_exits_with_1_if_metrics_differ(dl_runs, tmp_path):
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[4]"])
    own = json.loads(dl_runs("evaluate", folder, "--json")[1])["metrics"]
    summary = json.loads((folder / "summary.json").read_text())
    for change, code, message in ((1.0, 0, "exactly"), (1.0001, 0, "close"), (1.1, 1, "not reproduced")):
        summary["test"] = {f"test/{name}": value * change for name, value in own.items()}
        (folder / "summary.json").write_text(json.dumps(summary))
        found = dl_runs("evaluate", folder)
        assert found[0] == code and message in found[1].splitlines()[-1], found
        assert dl_runs("evaluate", folder, "--json")[0] == code
    summary["test"] = {"test/acc": own["acc"]}  # written by a version with fewer metrics
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "reproduced exactly" in dl_runs("evaluate", folder)[1]


def test_a_run_in_fp16_is_evaluated_where_there_is_no_gpu(dl_runs, tmp_path):
    folder = trained(tmp_path / "run", ["data=digits", "model.hidden=[4]"])
    config, summary = folder / ".hydra" / "config.yaml", folder / "summary.json"
    config.write_text(config.read_text().replace("precision: auto", "precision: fp16"))
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"precision": "fp16"}))
    code, out, err = dl_runs("evaluate", folder)
    assert code == 0 and "evaluated in fp32 on cpu, but trained in fp16, which rounds differently\n" in out, out + err


def test_the_last_weights_can_be_evaluated(dl_runs, tmp_path):
    """trainer.test=last with averaged weights: the run was tested with those."""
    keys = ["data=digits", "model.hidden=[16]", "trainer.test=last", "trainer.ema=0.9", "trainer.epochs=3"]
    folder = trained(tmp_path / "run", keys)
    code, out, err = dl_runs("evaluate", folder)
    assert code == 0 and "weights: last, epoch 3" in out and "reproduced exactly" in out, out + err


def test_other_data_is_prepared_like_that_of_the_run(dl_runs, tmp_path):
    """With the mean and std of the run: the same images with another normalisation give the same metrics."""
    write_mnist(tmp_path)
    folder = untrained(tmp_path / "run", ["data=mnist", f"data_dir={tmp_path}", "data.source.download=false"])
    own = json.loads(dl_runs("evaluate", folder, "--json")[1])["metrics"]
    other = ["data=mnist", f"data_dir={tmp_path}", "data.source.download=false", "data.mean=[0.7]", "data.std=[0.2]"]
    assert json.loads(dl_runs("evaluate", folder, *other, "--json")[1])["metrics"] == pytest.approx(own, rel=1e-6)
    half = write_mnist(tmp_path / "half", test=10)
    found = dl_runs("evaluate", folder, f"data.source.data_dir={half}")[1]
    assert "10 samples" in found and "summary.json" not in found


def test_other_data_can_be_given_by_keys_that_are_null_in_the_config(tmp_path):
    folder = tmp_path / "run"
    write_config(folder, ["data=image_folder", "model=lenet", "data.root=x"])
    assert other_config(folder, ["data.resize=[40,40]"])["data"]["resize"] == [40, 40]
    for key in ("data.rezise", "data.", "data.["):
        with pytest.raises(UserError, match="the run's config has no"):
            other_config(folder, [f"{key}=1"])


def test_texts_are_evaluated_with_the_vocabulary_of_the_run(dl_runs, tmp_path):
    write_texts(tmp_path / "a")
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path / "a") for o in FAMILIES["texts"]])
    own = json.loads(dl_runs("evaluate", folder, "--json")[1])["metrics"]
    other = write_texts(tmp_path / "b")
    keys = ["data=text_folder", f"data.root={other}/texts.csv", f"data_dir={tmp_path}", "data.vocab=6"]
    found = dl_runs("evaluate", folder, *keys, "split=test", "--json")
    assert json.loads(found[1])["metrics"] == pytest.approx(own, rel=1e-6)
    assert "text_folder, all splits, 60 samples" in dl_runs("evaluate", folder, *keys)[1], "what is named is scored"


def test_all_images_of_a_named_folder_are_scored(dl_runs, tmp_path):
    for part, count in (("own", 10), ("test", 15)):
        for name in ("ants", "bees"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (12, 12), 10 * i).save(tmp_path / part / name / f"{i}.png")
    small = ["data=image_folder", "data.spec.shape=[1,12,12]", "model.hidden=[4]", f"data_dir={tmp_path}"]
    folder = untrained(tmp_path / "run", [*small, "data.root=own"])
    assert "image_folder, all splits, 30 samples" in dl_runs("evaluate", folder, "data.root=test")[1]
    found = dl_runs("evaluate", folder, "data.root=test", "split=test")[1]
    assert "test split, 6 samples" in found and "6 of 30 samples; split=all evaluates" in found
    assert "test split, 4 samples" in dl_runs("evaluate", folder)[1], "its own"


def test_runs_are_compared(dl_runs, outputs, tmp_path):
    code, out, err = dl_runs("compare", outputs / "day" / "3_sweep", "--out", tmp_path / "c.png")
    assert code == 0, err
    rows = [re.split(r"\s{2,}", line) for line in out.splitlines()]
    assert ["seed", "0", "1"] in rows and not any(row[0].startswith(("model", "run_dir")) for row in rows)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    below = dl_runs("compare", "day/3_sweep", "--output-dir", outputs, "--out", tmp_path / "c.png")
    assert below == (0, out, "")
    runs = [outputs / "day" / name for name in ("1_mlp", "2_linear")]
    out = dl_runs("compare", *runs, "--metric", "train/loss", "--out", tmp_path / "d.png")[1]
    assert re.search(r"optimizer.lr +0.01 +0.001", out) and re.search(r"model +mlp +linear", out)


class Page:
    """What a page holds, as a browser would read it."""

    def __init__(self, text):
        from html.parser import HTMLParser

        self.words, self.images, self.links, self.open = "", [], [], []
        parser = HTMLParser()
        parser.handle_data = lambda data: setattr(self, "words", self.words + data)
        parser.handle_starttag = self.start
        parser.handle_endtag = lambda tag: self.open.remove(tag)
        parser.feed(text)

    def start(self, tag, attributes):
        self.images += [value for name, value in attributes if name == "src"]
        self.links += [value for name, value in attributes if name == "href"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)


def test_a_run_is_reported_on_one_page(dl_runs, outputs):
    folder = outputs / "day" / "1_mlp"
    code, out, err = dl_runs("report", folder)
    assert code == 0, err
    page = Page((folder / "report.html").read_text())
    assert not page.open and not page.links and all(image.startswith("data:image/png;base64,") for image in page.images)
    summary = json.loads((folder / "summary.json").read_text())
    wrong = sum(sum(row) - row[i] for i, row in enumerate(summary["test"]["confusion_matrix"]))
    assert f"The worst of {wrong} mistakes among 359 test samples" in page.words
    assert len(page.images) == len(list((folder / "plots").glob("*.png"))) + min(12, wrong) + 12
    for part in ("test/acc", "dl-run trainer.device=cpu", "hidden:", torch.__version__):
        assert part in page.words
    worst = re.findall(r"true (\d)predicted (\d) \((\d\.\d+)\)", page.words)[: min(12, wrong)]
    assert all(true != shown for true, shown, _ in worst)


@pytest.mark.parametrize(
    "family", ["targets", "columns", *(pytest.param(f, marks=pytest.mark.slow) for f in ("vae", "actor"))]
)
def test_runs_of_other_tasks_are_reported(family, dl_runs, tmp_path):
    write_texts(tmp_path)
    folder = trained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES[family]])
    code, _, err = dl_runs("report", folder, "--out", tmp_path / "r.html")
    assert code == 0, err
    page = Page((tmp_path / "r.html").read_text())
    assert not page.open and ("test samples" in page.words) == (family in ("targets", "columns"))


def test_samples_in_a_report_link_their_files_and_share_one_format():
    """Standardised zeros are shown as zeros; a column has one format."""
    from types import SimpleNamespace

    from dlrun.data.raw import decode
    from dlrun.runs.report import _captions, _inputs, _judged
    from dlrun.spec import Image, Table

    spec = Table(features=2, targets=1, names=("Weight", "Japan"), unit="MPG")
    fitted = {"mean": [2977.58, 0.2], "std": [849.4, 0.4]}
    x = ((torch.tensor([[2035.0, 0.0], [1985.0, 1.0]]).double() - torch.tensor(fitted["mean"])) / 849.4).float()
    x[:, 1] = torch.tensor([-0.5, 2.0])
    raw = decode(SimpleNamespace(spec=spec, fitted=lambda: fitted), x)
    assert raw[0, 1] == 0 and ">0<" in _inputs(spec, list(raw))[0] and ">2035<" in _inputs(spec, list(raw))[0]
    y, out = torch.tensor([[1.76e5], [9.0]]), torch.tensor([[98038.4], [9.5]])
    assert _captions(spec, y, out, out)[0] == [
        ["true 176000 MPG", "predicted 98038 MPG"],
        ["true 9 MPG", "predicted 10 MPG"],
    ]
    images, y = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])
    data = SimpleNamespace(
        spec=Image((1, 2, 2), 2, ("cat", "dog")), mean=[0.0], std=[1.0], files=lambda split: ["cat/a.png", "dog/b.png"],
        batches=lambda split: iter([(images, y)]),
    )  # fmt: skip
    predict = lambda x: torch.tensor([[0.9, 0.1], [0.8, 0.2]])  # noqa: E731
    run = SimpleNamespace(task=SimpleNamespace(predict=predict, decide=lambda p: p.argmax(1)))
    (head, worst), _ = _judged(run, data)
    assert head == "The worst of 1 mistake among 2 test samples"
    assert "true dog" in worst and "predicted cat (0.800)" in worst and "dog/b.png" in worst and "said" not in worst


def test_a_report_needs_no_data(dl_runs, tmp_path):
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES["texts"]])
    text = Page(dl_runs("report", folder)[1] and (folder / "report.html").read_text()).words
    assert "mistakes among 12 test samples" in text and "it is" in text and "texts.csv, text " in text
    (tmp_path / "texts.csv").unlink()
    code, out, _ = dl_runs("report", folder)
    assert code == 0 and "without sample predictions: " in out and "texts.csv" in out
    assert "without sample predictions" in (folder / "report.html").read_text()


def test_the_report_of_a_sweep_is_its_own_page(dl_runs, outputs, tmp_path):
    """It is written anew from the state of the sweep; the files of the sweep do not change."""
    folder = outputs / "day" / "3_sweep"
    before = (folder / "sweep.json").read_bytes()
    assert dl_runs("report", "day/3_sweep", "--output-dir", outputs)[0] == 0
    assert dl_runs("report", folder, "--out", tmp_path / "r.html")[0] == 0
    text = (folder / "report.html").read_text()
    assert text == (tmp_path / "r.html").read_text() and (folder / "sweep.json").read_bytes() == before
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])
    assert [job["status"] for job in data["jobs"]] == ["finished", "finished", "stopped"]
    assert [job["number"] for job in data["jobs"] if job["curves"]["val/acc"]] == [0, 1]
    summary = json.loads((folder / "1" / "summary.json").read_text())
    assert data["jobs"][1]["values"]["test/acc"] == summary["test"]["test/acc"]
    assert data["parameters"][0]["name"] == "seed" and data["goals"] == [{"name": "val/acc", "mode": "max"}]


def break_checkpoint(folder):
    path = folder / "checkpoints" / "best.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_weights(folder):
    state = load(folder / "checkpoints" / "best.ckpt")
    state["state_dict"] = {name: value[:3] for name, value in state["state_dict"].items()}
    save(folder / "checkpoints" / "best.ckpt", state)


def old_checkpoint(folder):
    state = load(folder / "checkpoints" / "best.ckpt")
    del state["data"]
    save(folder / "checkpoints" / "best.ckpt", state)


def edit_config(folder):
    path = folder / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("hidden:", "hiden:"))


def set_status(status, **more):
    return lambda folder: (folder / "summary.json").write_text(json.dumps({"status": status, **more}))


def set_config(text):
    return lambda folder: (folder / ".hydra" / "config.yaml").write_text(text)


DAMAGED = {
    "stopped": (
        set_status("stopped"),
        "the run is not finished, its status is 'stopped'\n  expected a finished",
    ),
    "diverged": (set_status("diverged"), "its status is 'diverged'\n  expected a finished run: its run.log has the"),
    "status in a list": (set_status(["finished"]), "summary.json is missing or damaged"),
    "best without value": (
        set_status("finished", best={"metric": "val/acc", "epoch": 1}),
        "the run's summary.json is damaged: expected ['epoch', 'metric', 'value'], found ['epoch', 'metric']",
    ),
    "no number of steps": (set_status("finished", steps="many"), "summary.json is damaged: steps: unexpected type str"),
    "no mapping in the config": (set_config("model: 3\ntask: 3\ntrainer: [3]\n"), "model=3: expected a mapping"),
    "no summary": (lambda f: (f / "summary.json").unlink(), "summary.json is missing or damaged"),
    "no config": (lambda f: (f / ".hydra" / "hydra.yaml").unlink(), "cannot read the run's config"),
    "wrong config": (edit_config, "its config is not valid in this version of dl-run: "),
    "no weights": (lambda f: (f / "checkpoints" / "best.ckpt").unlink(), "cannot read the checkpoint"),
    "broken weights": (break_checkpoint, "best.ckpt is damaged"),
    "other weights": (other_weights, "do not fit the run's config"),
    "older": (old_checkpoint, "lacks the values fitted on the train split"),
}


@pytest.mark.thorough(but=["no config", "no summary", "diverged", "stopped", "broken weights"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_runs_are_reported(damage, dl_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[4]"])
    spoil, message = DAMAGED[damage]
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (["evaluate"], ["predict", "x.png"], ["export", "--format", "state_dict"], ["report"]):
        code, out, err = dl_runs(arguments[0], folder, *arguments[1:])
        assert code == 2 and not out and message in err and err.startswith("dl-runs: ") and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


REFUSED = {
    "command": (["lst"], "lst: no such command; did you mean 'list'?"),
    "no runs": (["list"], "there is no run under "),
    "a name that is too long": (["list", "--output-dir", "x" * 256], "too long for the name of a file"),
    "last of none": (["show", "last"], "choose another folder with --output-dir DIR"),
    "no folder": (
        ["show", "nowhere"],
        "nowhere: no such folder\n  expected a run's folder, as dl-run prints it, or last",
    ),
    "no run": (["show", "empty"], "empty: this folder is not a run's"),
    "flag": (["list", "--sorted"], "--sorted\n  dl-runs list --help shows the options"),
    "limit": (["list", "--limit", "0"], "--limit 0: expected an integer >= 1"),
    "format": (["export", "nowhere", "--format", "tflite"], "--format tflite: no such format"),
    "one run": (["compare", "nowhere"], "nowhere: no such folder"),
    "split": (["evaluate", "run", "split=train"], "split=train: expected split=val, split=test, split=all, data=NAME"),
    "data": (["evaluate", "run", "data=mnits"], "data=mnits: no such option; did you mean 'mnist'?"),
    "pairing": (["evaluate", "run", "data=imdb"], "cannot learn from data=imdb"),
    "shape": (["evaluate", "run", "data=mnist"], "the run takes Image(shape=1x8x8, classes=10), but that data gives"),
    "data key": (["evaluate", "run", "data.nothing=3"], "data.nothing=3: the run's config has no 'data.nothing'"),
    "filter": (["list", "modle=mlp"], "modle=mlp: runs have no 'modle'; did you mean 'model'?"),
    "sort": (["list", "--sort", "accuracy"], "--sort accuracy: no such column"),
    "data value": (["evaluate", "run", "data.batch_size=[1"], "data.batch_size=[1: "),
    "report to a folder": (["report", "run", "--out", "."], "cannot write .: it is a folder\n  expected a file"),
    "export to a folder": (["export", "run", "--format", "state_dict", "--out", "."], "cannot write .: it is a folder"),
    "long name": (["report", "a" * 300], "no such folder\n  expected a run's folder"),
    "self": (["compare", "run", "run"], "1 run to compare: expected two or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_requests_are_refused(case, dl_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    arguments, message = REFUSED[case]
    if "run" in arguments:
        untrained(tmp_path / "run", ["data=digits", "model.hidden=[4]"])
    if case in ("filter", "sort"):
        stub(tmp_path / "outputs" / "day" / "a", 1, status="finished")
    code, out, err = dl_runs(*arguments)
    assert code == 2 and not out and message in err and err.startswith("dl-runs: ")


def test_a_missing_package_is_named(dl_runs, monkeypatch):
    from dlrun.runs import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    code, _, err = dl_runs("export", "nowhere", "--format", "onnx")
    assert (
        code == 2
        and "--format onnx needs onnxscript, not installed here\n  install the packages" in err
        and "-m pip install 'onnx>=" in err
    )


def test_help_fits_into_80_columns():
    for usage in (cli.USAGE, data_cli.USAGE):
        assert max(map(len, usage.splitlines())) <= 80


def test_dl_data_lists_checks_and_fetches(dl_runs, tmp_path):
    def dl_data(*arguments):
        return dl_runs(*arguments, main=data_cli.main)

    lines = dl_data("list")[1].splitlines()
    assert any(re.match(r"mnist +60,000 \+ 10,000 handwritten digits", line) for line in lines)
    write_mnist(tmp_path)
    code, out, err = dl_data("check", "mnist", f"data_dir={tmp_path}", "data.val_fraction=0.25")
    assert code == 0 and re.search(r"train +54 .*\nval +18 .*\ntest +20 ", out), out + err
    code, _, err = dl_data("check", "mnist", f"data_dir={tmp_path / 'none'}")
    assert code == 2 and "not tried (download=false)" in err and not (tmp_path / "none").exists()
    assert "did you mean 'mnist'" in dl_data("fetch", "mnits")[2]
    assert "expected data_dir=FOLDER or data.KEY=VALUE" in dl_data("check", "digits", "model=mlp")[2]
    assert "no stored samples" in dl_data("fetch", "cartpole")[1]


def test_the_samples_of_a_report_fill_whole_rows():
    columns = [int(number) for number in re.findall(r"--columns: (\d+)", page.STYLE)]
    assert len(columns) == 6 and not any(SHOWN % number for number in columns)


def test_damaged_lines_of_metrics_are_skipped(tmp_path):
    """Also lines that are not text, and the last one, which may be incomplete."""
    lines = [
        b'{"epoch": 1, "step": 1}',
        b"\xff{",
        b'{"epoch": 2, "step": 2, "step/loss": 1.0}',
        b'{"epoch": 3, "step": 3}',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*lines, b'{"epoch": 4']))
    assert [row["epoch"] for row in epoch_rows(tmp_path)] == [1, 3]
    assert epoch_rows(tmp_path / "none") == []


def test_commands_write_through_no_link_in_a_strangers_folder(dl_runs, tmp_path):
    folder, own = untrained(tmp_path / "run", FAMILIES["two classes"]), tmp_path / "own.png"
    own.write_text("mine")
    (folder / "plots").mkdir()
    for name in ("plots/confusion_matrix.png", "plots/importance.png", "report.html"):
        (folder / name).symlink_to(own)
    for verb in ("draw", "importance", "report"):
        code, _, err = dl_runs(verb, folder)
        assert code == 2 and ("is a link to" in err or "leads out of the folder" in err), err
    assert own.read_text() == "mine"
